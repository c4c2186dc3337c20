"""Which Triton release serves engines, and the TensorRT in it: as pinned by serving/Dockerfile, and nowhere else.

python -m serving.versions
"""

from __future__ import annotations

import re
from pathlib import Path

DOCKERFILE = Path(__file__).with_name("Dockerfile")


def _pinned(name: str) -> str:
    [value] = set(re.findall(rf"^ARG {name}=(\S+)$", DOCKERFILE.read_text(), re.MULTILINE))
    return str(value)


TRITON_RELEASE = _pinned("TRITON_RELEASE")
TENSORRT_VERSION = _pinned("TENSORRT_VERSION")

if __name__ == "__main__":
    print(f"Triton {TRITON_RELEASE}, TensorRT {TENSORRT_VERSION}")
