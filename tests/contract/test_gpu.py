"""Which GPU an engine is for, on machines that only nvidia-smi's answers describe."""

from __future__ import annotations

from pathlib import Path

import pytest

from contract.gpu import Gpu, GpuError, visible_gpus

L4, A100 = Gpu("NVIDIA L4", "8.9"), Gpu("NVIDIA A100-SXM4-40GB", "8.0")
BY_BUS = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}


def write_nvidia_smi(folder: Path, *lines: str, status: int = 0) -> None:
    """A program that lists these GPUs, as nvidia-smi does for uuid, name and compute_cap."""
    listed = "\n".join(lines)
    (folder / "nvidia-smi").write_text(f"#!/bin/sh\ncat <<'END'\n{listed}\nEND\nexit {status}\n")
    (folder / "nvidia-smi").chmod(0o755)


@pytest.fixture
def two_kinds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_nvidia_smi(tmp_path, "GPU-aa-1, NVIDIA L4, 8.9", "GPU-bb-2, NVIDIA A100-SXM4-40GB, 8.0")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")


@pytest.mark.usefixtures("two_kinds")
@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, [L4, A100]),
        ("0", [L4]),
        ("1", [A100]),
        ("1, 0", [A100, L4]),
        ("GPU-bb", [A100]),
        ("GPU-bb-2,GPU-aa-1", [A100, L4]),
    ],
)
def test_gpus_are_those_that_cuda_shows_in_its_order(visible: str | None, expected: list[Gpu]) -> None:
    chosen = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert visible_gpus({**BY_BUS, **chosen}) == expected


@pytest.mark.usefixtures("two_kinds")
@pytest.mark.parametrize("environment", [{}, {"CUDA_VISIBLE_DEVICES": "1"}, {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}])
def test_where_cuda_counts_by_speed_two_kinds_are_not_told_apart_by_guessing(environment: dict[str, str]) -> None:
    with pytest.raises(GpuError, match=r"NVIDIA L4, NVIDIA A100.* set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        visible_gpus(environment)


@pytest.mark.usefixtures("two_kinds")
def test_a_uuid_needs_no_order() -> None:
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "GPU-bb-2"}) == [A100]


@pytest.mark.usefixtures("two_kinds")
@pytest.mark.parametrize("device", ["2", "GPU-cc", "-2", "MIG-aa"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(GpuError, match=f"names {device}, which is none of nvidia-smi's GPUs: GPU-aa-1, GPU-bb-2"):
        visible_gpus({**BY_BUS, "CUDA_VISIBLE_DEVICES": device})


@pytest.mark.usefixtures("two_kinds")
@pytest.mark.parametrize("visible", ["", "-1"])
def test_hidden_gpus_are_told_from_missing_ones(visible: str) -> None:
    with pytest.raises(GpuError, match="hides every GPU"):
        visible_gpus({"CUDA_VISIBLE_DEVICES": visible})


def test_gpus_of_one_kind_need_no_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "NVIDIA GeForce RTX 4090, Founders"
    write_nvidia_smi(tmp_path, f"GPU-aa, {name}, 8.9", f"GPU-bb, {name}, 8.9")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert visible_gpus({}) == [Gpu(name, "8.9")] * 2
    assert visible_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == [Gpu(name, "8.9")]


def test_a_machine_without_a_gpu_is_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GpuError, match="nvidia-smi is not installed"):
        visible_gpus({})
    monkeypatch.setenv("PATH", "/usr/bin:/bin", prepend=":")
    write_nvidia_smi(tmp_path, "No devices were found", status=6)
    with pytest.raises(GpuError, match="finds no GPU: No devices were found"):
        visible_gpus({})
    write_nvidia_smi(tmp_path, "No devices were found")
    with pytest.raises(GpuError, match="answered 'No devices were found'"):
        visible_gpus({})
