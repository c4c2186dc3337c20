"""ONNX -> TensorRT engine, proven to compute in the precision asked for.

python -m convert.build_engine --onnx model_repository/agegendernet/1/model.onnx --precision fp16
python -m convert.build_engine --library tensorrt-rtx ...  # without a GPU, for GeForce and RTX cards
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import onnx
import tyro

from contract import program
from contract.files import replacing
from contract.gpu import Gpu, visible_gpus
from contract.repository import PLAN_NAME, EngineManifest, file_sha256, write_engine_manifest
from convert.engine import library
from convert.engine.layer_types import TypeProof
from convert.engine.library import Library
from convert.engine.options import BuildOptions, check_profile
from convert.engine.precision import PrecisionProof, prove
from convert.engine.source import Precision, convolution_precisions, read_source
from convert.engine.typed_graph import for_tensorrt

T = TypeVar("T")


@dataclass(frozen=True)
class EngineConfig:
    """Build a plan from an ONNX model; by default it serves on this GPU and this TensorRT only."""

    library: Library = "tensorrt"  # tensorrt-rtx needs no GPU, and its engines are not for Triton's container
    onnx: Path = Path("model_repository/agegendernet/1/model.onnx")
    precision: Precision = "fp16"  # what the ONNX model must be: TensorRT takes the precision from it
    out: Path | None = None  # by default model.plan beside the ONNX model
    model_config: Path | None = None  # by default config.pbtxt of the model whose version `out` is
    options: tyro.conf.OmitArgPrefixes[BuildOptions] = field(default_factory=BuildOptions)


def main(config: EngineConfig) -> None:
    """Build, prove and write the plan and its manifest. Raises UserError, before anything is written."""
    plan = config.out or config.onnx.with_name(PLAN_NAME)
    check_profile(config.options.profile, config.model_config or plan.parent.parent / "config.pbtxt")
    library.check_options(config.options, config.library)
    read_source(config.onnx, config.precision)
    model = for_tensorrt(onnx.load(config.onnx))
    stated = convolution_precisions(model)
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")  # so that CUDA counts GPUs as nvidia-smi does
    gpu = visible_gpus()[0] if library.TRAITS[config.library].builds_on_gpu else None
    library.select(config.library)
    from convert.engine import builder as engine_builder

    print(f"building {plan} with {engine_builder.NAME}, {config.precision}{f', for {gpu.name}' if gpu else ''}")
    cancelled = threading.Event()
    source = model.SerializeToString()
    built = interruptible(lambda: engine_builder.build(source, config.options, stated, cancelled), cancelled)
    inspected = None if built.inspector_json is None else prove(built.inspector_json, stated)
    gpu = gpu or Gpu("any of these compute capabilities", ", ".join(built.compute_capabilities))
    with replacing(plan) as temporary:
        temporary.write_bytes(built.plan)
    manifest = describe(config, engine_builder.VERSION, gpu, built.types, inspected)
    print(f"{summary(built.types, inspected)}; for compute capability {gpu.compute_capability}")
    print(f"wrote {plan} ({len(built.plan) / 1e6:.1f} MB) and {write_engine_manifest(manifest, plan)}")


def interruptible(work: Callable[[], T], cancelled: threading.Event) -> T:
    """Run `work` in a thread and wait: Ctrl-C, which native code would hold up, sets `cancelled` and is then raised."""
    with ThreadPoolExecutor(1) as executor:  # leaving it waits for `work`
        try:
            return executor.submit(work).result()
        except KeyboardInterrupt:
            cancelled.set()
            raise


def describe(
    config: EngineConfig, version: str, gpu: Gpu, types: TypeProof, inspected: PrecisionProof | None
) -> EngineManifest:
    """Return the manifest of an engine built now; without an inspector, what it would say is empty."""
    return EngineManifest(
        library=config.library,
        tensorrt_version=version,
        gpu_name=gpu.name,
        compute_capability=gpu.compute_capability,
        onnx_sha256=file_sha256(config.onnx),
        profile=config.options.profile,
        precision=config.precision,
        layer_types=types.layer_types,
        convolution_types=types.convolution_types,
        layer_precisions=inspected.layer_precisions if inspected else {},
        convolution_precisions=inspected.convolution_precisions if inspected else {},
        hardware_compatibility=config.options.hardware_compatibility,
        version_compatible=config.options.version_compatible,
        built_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def summary(types: TypeProof, inspected: PrecisionProof | None) -> str:
    """Return in words what is proven of the convolutions, before the build and after it."""
    lines = [f"convolutions as parsed: {_counts(types.convolution_types)}"]
    if inspected is None:
        lines.append("nothing inspected, since no GPU is needed")
    else:
        unnamed = f" (it does not name {', '.join(inspected.unnamed)})" if inspected.unnamed else ""
        lines.append(f"as the inspector says: {_counts(inspected.convolution_precisions)}{unnamed}")
    return "; ".join(lines)


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(EngineConfig)), stopped="interrupted; no engine was written")
