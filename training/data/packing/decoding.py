"""Many image files -> chunks of canonical images on disk, in parallel; a run that was killed goes on where it was.

A chunk is one `.npz`, written to a temporary name and renamed: it is there whole or not at all, and its presence is the
only record of progress.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from contract.files import replacing
from contract.images import ImageError, canonical_file
from contract.program import UserError
from contract.spec import IMAGE, Images
from training.data.packing.parallel import map_in_processes

CHUNK_FACES = 32  # of 1024 x 1024 PNG less than a second's work: what a kill loses, and Ctrl-C waits for
_FINGERPRINT_NAME = "inputs.sha256"


class DecodingError(UserError, RuntimeError):
    """The decoding itself, not one picture, cannot go on; the message names the remedy."""


@dataclass(frozen=True)
class DecodedImages:
    """N decoded files as chunks on disk: of each the pixels' digest, or why it could not be read."""

    chunks: tuple[Path, ...]
    digests: NDArray[Any]  # [N], sha256 of the canonical pixels in hexadecimal, empty where unreadable
    errors: NDArray[Any]  # [N], empty where readable

    @property
    def readable(self) -> NDArray[np.bool_]:
        return self.digests != ""

    def batches(self, kept: NDArray[np.bool_]) -> Iterator[Images]:
        """Yield the images uint8 [<= CHUNK_FACES, 128, 128, 3] where `kept` [N], in order."""
        for start, chunk in zip(range(0, len(kept), CHUNK_FACES), self.chunks, strict=True):
            with np.load(chunk) as arrays:
                yield arrays["images"][kept[start : start + CHUNK_FACES]]


def decode_images(files: Sequence[Path], folder: Path, *, fingerprint: str, workers: int) -> DecodedImages:
    """Decode the files into chunks in `folder`, keeping the chunks that an earlier run with this fingerprint left.

    A file that cannot be read is an entry in `errors`. Raises DecodingError where a worker was killed, OSError where a
    chunk cannot be written.
    """
    _start_over_unless(folder, fingerprint)
    tasks = [
        _Task(tuple(files[start : start + CHUNK_FACES]), folder / f"{start:08d}.npz")
        for start in range(0, len(files), CHUNK_FACES)
    ]
    pending = [task for task in tasks if not _is_whole(task.chunk)]
    done = len(files) - sum(len(task.files) for task in pending)
    with tqdm(total=len(files), initial=done, desc="decoding images", unit="face") as progress:
        try:
            for faces in map_in_processes(_decode_chunk, pending, workers=workers):
                progress.update(faces)
        except BrokenProcessPool as error:
            raise DecodingError(
                "a worker process was killed, perhaps for want of memory; run the same command again with fewer "
                "--workers: it continues"
            ) from error
    return DecodedImages(tuple(task.chunk for task in tasks), _column(tasks, "digests"), _column(tasks, "errors"))


def pixels_digest(image: Images) -> str:
    """Return the sha256 of one canonical image's pixels: equal for equal pictures in any file and format."""
    return hashlib.sha256(image.tobytes()).hexdigest()


@dataclass(frozen=True)
class _Task:
    files: tuple[Path, ...]
    chunk: Path


def _decode_chunk(task: _Task) -> int:
    images = np.zeros((len(task.files), *IMAGE.dims), np.uint8)
    digests, errors = [""] * len(task.files), [""] * len(task.files)
    for i, file in enumerate(task.files):
        try:
            images[i] = canonical_file(file)
        except (ImageError, OSError) as error:
            errors[i] = str(error)
        else:
            digests[i] = pixels_digest(images[i])
    with replacing(task.chunk) as temporary:
        np.savez(temporary, images=images, digests=np.array(digests), errors=np.array(errors))
    return len(task.files)


def _start_over_unless(folder: Path, fingerprint: str) -> None:
    recorded = folder / _FINGERPRINT_NAME
    if recorded.exists() and recorded.read_text() == fingerprint:
        return
    if folder.exists():
        print("the inputs, options or decoder are not those of the unfinished run: starting over", file=sys.stderr)
        shutil.rmtree(folder)
    with replacing(recorded) as temporary:
        temporary.write_text(fingerprint)


def _is_whole(chunk: Path) -> bool:
    # The checksums cost a second per 3 GB and find what a power cut leaves of a file that was renamed but not written.
    try:
        with zipfile.ZipFile(chunk) as archive:
            return archive.testzip() is None
    except (FileNotFoundError, zipfile.BadZipFile):
        return False


def _column(tasks: Iterable[_Task], name: str) -> NDArray[Any]:
    parts = []
    for task in tasks:
        with np.load(task.chunk) as arrays:
            parts.append(arrays[name])
    return np.concatenate(parts)
