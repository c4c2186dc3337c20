"""Equal pictures under different names: which copy stays, and why each other one goes.

A picture whose copies carry different labels is left out altogether: one of the labels is wrong and nothing says which.
Of copies that agree, the one in the most held-out split stays, so that nothing trained on is tested on; among those,
the first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from contract.samples import IMAGES_NAME, map_images, read_manifest
from training.data.faces import LabelledFace, Rejection
from training.data.packing.decoding import pixels_digest

_MOST_HELD_OUT_FIRST = ("holdout", "selection", "train", "age_zero")


def duplicates(
    faces: Sequence[LabelledFace],
    digests: Sequence[str],
    *,
    keep_whole: str | None = None,
    elsewhere: Collection[str] = (),
) -> Iterator[tuple[int, Rejection]]:
    """Yield the position of each face to leave out, with the reason.

    `digests` are the faces' pixels as decoding.pixels_digest gives them, empty where a picture could not be read;
    `elsewhere` those of other datasets, whose pictures this one gives up. What stands in the split `keep_whole`
    stays, however often and however labelled, and its copies in other splits go.
    """
    copies_of = defaultdict(list)
    for position, digest in enumerate(digests):
        if digest:
            copies_of[digest].append(position)
    for digest, copies in copies_of.items():
        if digest in elsewhere:
            yield from ((i, _rejection(faces[i], "duplicate in another dataset")) for i in copies)
        elif len(copies) > 1:
            yield from _within(faces, copies, keep_whole)


def digests_of_manifests(manifests: Sequence[Path]) -> frozenset[str]:
    """Return the digests of every packed image of these datasets. Raises ManifestError."""
    found: set[str] = set()
    for manifest in manifests:
        packed = map_images(manifest.with_name(IMAGES_NAME), len(read_manifest(manifest)))
        found.update(pixels_digest(image) for image in tqdm(packed, desc=f"hashing {manifest}", unit="face"))
    return frozenset(found)


def _within(
    faces: Sequence[LabelledFace], copies: Sequence[int], keep_whole: str | None
) -> Iterator[tuple[int, Rejection]]:
    order = dict.fromkeys((keep_whole, *_MOST_HELD_OUT_FIRST))
    kept, *others = sorted(copies, key=lambda i: list(order).index(faces[i].split))
    if faces[kept].split == keep_whole:
        others = [i for i in copies if faces[i].split != keep_whole]
    elif any(_labels(faces[i]) != _labels(faces[kept]) for i in others):
        names = ", ".join(faces[i].id for i in copies)
        yield from ((i, _rejection(faces[i], "same picture with different labels", names)) for i in copies)
        return
    for i in others:
        yield i, _rejection(faces[i], "duplicate", f"of {faces[kept].id} ({faces[kept].split})")


def _rejection(face: LabelledFace, reason: str, detail: str = "") -> Rejection:
    return Rejection(face.id, face.image, reason, detail)


def _labels(face: LabelledFace) -> str:
    return repr((face.age, face.gender, face.emotion, face.extra))  # text, since NaN does not equal NaN
