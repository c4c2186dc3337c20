"""The range of every activation on real faces: what post-training quantization makes its scales from."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
from tqdm import tqdm

from contract.samples import Samples, load_samples
from contract.spec import IMAGE, Images

Method = Literal["minmax", "entropy", "percentile"]
Ranges = dict[str, tuple[float, float]]  # tensor name -> lowest and highest value

# Histograms of float activations in memory at once; the result does not depend on it.
_BATCH_SIZE = 8
_METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "entropy": CalibrationMethod.Entropy,
    "percentile": CalibrationMethod.Percentile,
}


@dataclass(frozen=True)
class CalibrationOptions:
    """Which faces of the training split are looked at, and how a range is made of what they give."""

    faces: int = 512  # shared out evenly among the datasets
    method: Method = "minmax"  # the other two cut off what is rare: measured against each other in docs/int8.md
    percentile: float = 99.999  # of absolute values, for the method of that name
    seed: int = 0  # of the choice of faces

    def __post_init__(self) -> None:
        if self.faces < 1:
            raise ValueError(f"--faces {self.faces}: calibration needs at least one face")
        if not 0 < self.percentile <= 100:
            raise ValueError(f"--percentile {self.percentile:g} is not within 0 and 100")


def training_faces(manifests: Sequence[Path], options: CalibrationOptions) -> Images:
    """Faces of the training split, uint8 [N, 128, 128, 3], as many from each dataset as it has up to its share.

    Raises ManifestError for a dataset without any.
    """
    shares = np.diff(np.linspace(0, options.faces, len(manifests) + 1).astype(int))
    rng = np.random.default_rng(options.seed)
    return np.concatenate([
        _some(load_samples(manifest, "train"), int(share), rng)
        for manifest, share in zip(manifests, shares, strict=True)
    ])  # fmt: skip


def activation_ranges(onnx: Path, faces: Images, operators: Sequence[str], options: CalibrationOptions) -> Ranges:
    """Lowest and highest value of what goes into and comes out of every such operator of a float model."""
    settings: dict[str, Any] = {"symmetric": options.method != "minmax", "percentile": options.percentile}
    if options.method != "minmax":
        settings |= {"num_bins": 2048, "num_quantized_bins": 128}  # as TensorRT's own entropy calibration had it
    with TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):  # the calibrators print a line a batch
        calibrator = create_calibrator(
            onnx,
            list(operators),
            augmented_model_path=str(Path(folder, "augmented.onnx")),
            calibrate_method=_METHODS[options.method],
            extra_options=settings,
        )
        for batch in _batches(faces):
            calibrator.collect_data(batch)  # one by one: it keeps every activation of all that it is given at once
        found = calibrator.compute_data()
    return {name: (data.lowest.item(), data.highest.item()) for name, data in found.items()}


def _some(samples: Samples, count: int, rng: np.random.Generator) -> Images:
    chosen = np.sort(rng.permutation(len(samples))[:count])
    return samples.packed[samples.rows[chosen]]


def _batches(faces: Images) -> Iterator[_OneBatch]:
    with tqdm(total=len(faces), desc="calibrating", unit="face", leave=False) as bar:
        for start in range(0, len(faces), _BATCH_SIZE):
            batch = faces[start : start + _BATCH_SIZE]
            yield _OneBatch(batch)
            bar.update(len(batch))


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]
    """What onnxruntime's calibrators read from: images once, then None."""

    def __init__(self, images: Images) -> None:
        self._inputs: dict[str, Images] | None = {IMAGE.name: np.ascontiguousarray(images)}

    def get_next(self) -> dict[str, Images] | None:
        inputs, self._inputs = self._inputs, None
        return inputs
