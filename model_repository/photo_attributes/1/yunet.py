"""Faces in a photo: YuNet (OpenCV Zoo, 2023mar) in OpenVINO, at one or more reductions of the photo.

OpenCV's own FaceDetectorYN gives the same boxes, landmarks and scores (to 0.0001 pixels on 60 faces) and takes 2 to 3
times as long: 25 against 10 ms at 640 x 480 on one core.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray
from openvino.preprocess import ColorFormat, PrePostProcessor
from PIL import Image

_STRIDES = (8, 16, 32)  # of the network's three grids
_PADDED_TO_PX = 64  # at least the largest stride; more makes fewer shapes, each of which OpenVINO must prepare for
_MAX_OVERLAP = 0.3  # intersection over union, as OpenCV's default
_MAX_CANDIDATES = 5000  # as OpenCV's default
_MAX_FINE_FACE_PX = 320  # where the photo is searched coarser too, larger faces are left to that


@dataclass(frozen=True)
class Faces:
    """N faces, in pixels of the photo: boxes [N, 4], scores [N], landmarks [N, 5, 2]."""

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: NDArray[Any] | slice) -> Faces:
        return Faces(self.boxes[index], self.scores[index], self.landmarks[index])

    @property
    def sides_px(self) -> NDArray[np.float32]:
        """Width and height of each box, [N, 2]."""
        return self.boxes[:, 2:] - self.boxes[:, :2]

    def scaled(self, factors: NDArray[np.float32]) -> Faces:
        """The same faces in a photo of another size; `factors` are those of width and height."""
        return Faces(self.boxes * np.tile(factors, 2), self.scores, self.landmarks * factors)


class YuNet:
    """The detector; any number of threads may search with it."""

    def __init__(self, path: Path, *, search_sides_px: tuple[int, ...], cores: int) -> None:
        self._search_sides_px = tuple(sorted(search_sides_px))
        self._compiled = _compile(path, cores)
        self._own = threading.local()  # an inference request is for one thread at a time

    def find(self, photo: Image.Image, *, min_score: float) -> Faces:
        """The faces of an upright photo of mode RGB, largest first."""
        found = []
        for level, picture in enumerate(reversed(self._reductions(photo))):  # coarsest first
            faces = self._search(np.asarray(picture), min_score)
            if level > 0:
                faces = faces[faces.sides_px.max(axis=1, initial=0) <= _MAX_FINE_FACE_PX]
            found.append(faces.scaled(np.array(photo.size, np.float32) / picture.size))
        faces = _without_repeated(_joined(found))
        return faces[np.argsort(-faces.sides_px.prod(axis=1), kind="stable")]

    def _reductions(self, photo: Image.Image) -> list[Image.Image]:
        """The photo at each size that is searched, finest first; each is made from the one before."""
        longer = max(photo.size)
        sides = [
            side
            for n, side in enumerate(self._search_sides_px)
            if n == 0 or longer > 1.3 * self._search_sides_px[n - 1]
        ]
        pictures: list[Image.Image] = []
        for side in reversed(sides):
            source = pictures[-1] if pictures else photo
            scale = min(side / longer, 1.0)
            size = (max(round(photo.width * scale), 1), max(round(photo.height * scale), 1))
            pictures.append(source.resize(size, Image.Resampling.BILINEAR, reducing_gap=1.5) if scale < 1 else source)
        return pictures

    def _search(self, picture: NDArray[np.uint8], min_score: float) -> Faces:
        height, width = (-(-side // _PADDED_TO_PX) * _PADDED_TO_PX for side in picture.shape[:2])
        padded = np.zeros((1, height, width, 3), np.uint8)
        padded[0, : picture.shape[0], : picture.shape[1]] = picture
        if not hasattr(self._own, "request"):
            self._own.request = self._compiled.create_infer_request()
        self._own.request.infer({0: padded}, share_inputs=True)
        grids = [
            {kind: self._own.request.get_tensor(f"{kind}_{stride}").data[0] for kind in ("cls", "obj", "bbox", "kps")}
            for stride in _STRIDES
        ]
        parts = zip(grids, _STRIDES, strict=True)
        return _joined([_faces_of_grid(grid, stride, width // stride, min_score) for grid, stride in parts])


def _compile(path: Path, cores: int) -> openvino.CompiledModel:
    """The network for RGB pictures, uint8 [1, H, W, 3] of any size, on all cores together: soonest for a lone photo."""
    core = openvino.Core()
    network = core.read_model(path)
    network.reshape([1, 3, -1, -1])
    steps = PrePostProcessor(network)
    given = steps.input().tensor()
    given.set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC")).set_color_format(ColorFormat.RGB)
    steps.input().preprocess().convert_element_type(openvino.Type.f32).convert_color(ColorFormat.BGR)
    steps.input().model().set_layout(openvino.Layout("NCHW"))
    settings = {"INFERENCE_NUM_THREADS": cores, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
    return core.compile_model(steps.build(), "CPU", settings)


def _faces_of_grid(grid: dict[str, NDArray[np.float32]], stride: int, columns: int, min_score: float) -> Faces:
    """What one grid says, in pixels of the picture searched. Each cell's numbers are offsets in units of the stride."""
    scores = np.sqrt(grid["cls"][:, 0].clip(0, 1) * grid["obj"][:, 0].clip(0, 1))
    cells = np.flatnonzero(scores >= min_score)
    origins = np.stack([cells % columns, cells // columns], axis=1).astype(np.float32)
    centres = (origins + grid["bbox"][cells, :2]) * stride
    half_sides = np.exp(grid["bbox"][cells, 2:]) * stride / 2
    landmarks = (origins[:, None] + grid["kps"][cells].reshape(-1, 5, 2)) * stride
    return Faces(np.concatenate([centres - half_sides, centres + half_sides], axis=1), scores[cells], landmarks)


def _joined(parts: list[Faces]) -> Faces:
    boxes, scores, landmarks = zip(*((part.boxes, part.scores, part.landmarks) for part in parts), strict=True)
    return Faces(np.concatenate(boxes), np.concatenate(scores), np.concatenate(landmarks))


def _without_repeated(faces: Faces) -> Faces:
    """Of faces that overlap the one with the best score (non-maximum suppression)."""
    finite = np.isfinite(faces.boxes).all(axis=1) & np.isfinite(faces.landmarks).all(axis=(1, 2))
    faces = faces[finite]
    faces = faces[np.argsort(-faces.scores, kind="stable")[:_MAX_CANDIDATES]]
    areas = faces.sides_px.prod(axis=1)
    left = np.arange(len(faces))
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        low = np.maximum(faces.boxes[best, :2], faces.boxes[left, :2])
        high = np.minimum(faces.boxes[best, 2:], faces.boxes[left, 2:])
        shared = (high - low).clip(0).prod(axis=1)
        left = left[shared <= _MAX_OVERLAP * (areas[best] + areas[left] - shared)]
    return faces[np.array(kept, np.int64)]
