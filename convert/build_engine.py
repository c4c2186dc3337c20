"""ONNX -> TensorRT engine for this machine's GPU, proven to compute in the precision asked for.

python -m convert.build_engine --onnx model_repository/agegendernet/1/model.onnx --precision fp16
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import tyro

from contract import program
from contract.files import replacing
from contract.program import UserError
from convert.engine.manifest import EngineManifest, Gpu, current_gpu, write_manifest
from convert.engine.options import BuildOptions, check_profile
from convert.engine.precision import PrecisionProof, prove
from convert.engine.source import Precision, file_sha256, for_tensorrt, read_source

T = TypeVar("T")


@dataclass(frozen=True)
class EngineConfig:
    """Build a plan from an ONNX model; by default it serves on this GPU and this TensorRT only."""

    onnx: Path = Path("model_repository/agegendernet/1/model.onnx")
    precision: Precision = "fp16"  # what the ONNX model must be: TensorRT takes the precision from it
    out: Path | None = None  # by default model.plan beside the ONNX model
    model_config: Path | None = None  # by default config.pbtxt of the model whose version `out` is
    options: tyro.conf.OmitArgPrefixes[BuildOptions] = field(default_factory=BuildOptions)


class TensorRTUnavailableError(UserError, RuntimeError):
    """TensorRT is not installed."""


def main(config: EngineConfig) -> None:
    plan = config.out or config.onnx.with_name("model.plan")
    check_profile(config.options.profile, config.model_config or plan.parent.parent / "config.pbtxt")
    stated = read_source(config.onnx, config.precision)
    source = for_tensorrt(config.onnx)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # so that CUDA counts GPUs as nvidia-smi does
    gpu = current_gpu()
    try:
        from convert.engine import builder as engine_builder
    except ModuleNotFoundError as error:
        raise TensorRTUnavailableError(
            f"the package {error.name!r} is not installed; build in the server's container with make engine DOCKER=1"
        ) from error
    try:
        print(f"building {plan} with TensorRT {engine_builder.VERSION} for {gpu.name}, {config.precision}")
        cancelled = threading.Event()
        content, inspector_json = interruptible(
            lambda: engine_builder.build(source, config.options, cancelled), cancelled
        )
    except engine_builder.BuildError as error:
        sys.exit(f"error: {error}")
    proof = prove(inspector_json, stated)
    with replacing(plan) as temporary:
        temporary.write_bytes(content)
    manifest = describe(config, engine_builder.VERSION, gpu, proof)
    print(f"{summary(proof, stated)}\nwrote {plan} ({len(content) / 1e6:.1f} MB) and {write_manifest(manifest, plan)}")


def interruptible(work: Callable[[], T], cancelled: threading.Event) -> T:
    """Run `work` in a thread and wait: Ctrl-C, which native code would hold up, sets `cancelled` and is then raised."""
    with ThreadPoolExecutor(1) as executor:  # leaving it waits for `work`
        try:
            return executor.submit(work).result()
        except KeyboardInterrupt:
            cancelled.set()
            raise


def describe(config: EngineConfig, tensorrt_version: str, gpu: Gpu, proof: PrecisionProof) -> EngineManifest:
    """The manifest of an engine built now."""
    return EngineManifest(
        tensorrt_version=tensorrt_version,
        gpu_name=gpu.name,
        compute_capability=gpu.compute_capability,
        onnx_sha256=file_sha256(config.onnx),
        profile=config.options.profile,
        precision=config.precision,
        layer_precisions=proof.layer_precisions,
        convolution_precisions=proof.convolution_precisions,
        hardware_compatibility=config.options.hardware_compatibility,
        version_compatible=config.options.version_compatible,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def summary(proof: PrecisionProof, stated: dict[str, str]) -> str:
    """What was proven, in words."""
    proven = ", ".join(f"{count} in {name}" for name, count in proof.convolution_precisions.items())
    unnamed = f"; the inspector does not name {', '.join(proof.unnamed)}" if proof.unnamed else ""
    return f"proven of {len(stated)} convolutions: {proven}{unnamed}"


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(EngineConfig)), stopped="interrupted; no engine was written")
