"""Every call of TensorRT's builder, for TensorRT 10 and 11: ONNX model -> plan and the inspector's account of it.

The two majors do not differ in what is called here: STRONGLY_TYPED is required by 10 and ignored by 11, which knows no
other way, and precision flags, which 11 removed, are of no use in a strongly typed network.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, SupportsInt

import tensorrt as trt  # type: ignore[import-not-found, unused-ignore]
from tqdm import tqdm

from contract.files import replacing
from contract.program import UserError
from contract.spec import IMAGE
from convert.engine.options import BuildOptions

VERSION: str = trt.__version__


class BuildError(UserError, RuntimeError):
    """TensorRT refused the model or the settings; the message holds everything that it said."""


def build(onnx: bytes, options: BuildOptions, cancelled: threading.Event) -> tuple[bytes, str]:
    """The plan and the inspector's JSON. Raises BuildError, also soon after `cancelled` is set."""
    progress = _Progress(cancelled)
    try:
        return _build(onnx, options, _Log(), progress)
    finally:
        progress.close()


def _build(onnx: bytes, options: BuildOptions, log: _Log, progress: _Progress) -> tuple[bytes, str]:
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    _check_parsed(bool(parser.parse(onnx)), parser)
    config = _configure(builder, options)
    config.progress_monitor = progress
    plan = _check_built(builder.build_serialized_network(network, config), log)
    _keep_timing_cache(config, options.timing_cache)
    return plan, _inspect(trt.Runtime(log), plan, log)


def _check_parsed(parsed: bool, parser: trt.OnnxParser) -> None:
    if not parsed:
        errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        raise BuildError(f"TensorRT {VERSION} cannot parse the ONNX model:\n" + "\n".join(errors))


def _check_built(plan: trt.IHostMemory | None, log: _Log) -> bytes:
    if plan is None:
        raise BuildError(f"TensorRT {VERSION} built no engine:\n" + "\n".join(log.errors))
    return bytes(plan)


def _configure(builder: trt.Builder, options: BuildOptions) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the proof of precision reads it
    config.hardware_compatibility_level = {
        "none": trt.HardwareCompatibilityLevel.NONE,
        "ampere_plus": trt.HardwareCompatibilityLevel.AMPERE_PLUS,
        "same_compute_capability": trt.HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY,
    }[options.hardware_compatibility]
    if options.version_compatible:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
    # TF32 keeps 10 bits of the mantissa, no more than half precision does; what the graph has in FP32 is to be FP32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if options.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.workspace_mib * 2**20)
    profile = builder.create_optimization_profile()
    batches = (options.profile.min, options.profile.opt, options.profile.max)
    profile.set_shape(IMAGE.name, *((batch, *IMAGE.dims) for batch in batches))
    if config.add_optimization_profile(profile) < 0:
        raise BuildError(f"TensorRT {VERSION} refuses the optimization profile {options.profile}")
    _use_timing_cache(config, options.timing_cache)
    return config


def _use_timing_cache(config: trt.IBuilderConfig, path: Path) -> None:
    known = path.read_bytes() if path.is_file() else b""
    for content in (known, b""):  # TensorRT refuses a cache of another version or GPU: start an empty one
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
            return


def _keep_timing_cache(config: trt.IBuilderConfig, path: Path) -> None:
    cache: trt.ITimingCache | None = config.get_timing_cache()
    if cache is not None:
        with replacing(path) as temporary:
            temporary.write_bytes(bytes(cache.serialize()))


def _inspect(runtime: trt.Runtime, plan: bytes, log: _Log) -> str:
    runtime.engine_host_code_allowed = True  # a version-compatible plan carries its own runtime
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"TensorRT {VERSION} cannot load the plan that it has just built:\n" + "\n".join(log.errors))
    information: str = engine.create_engine_inspector().get_engine_information(trt.LayerInformationFormat.JSON)
    return information


def _describe(error: trt.ParserError) -> str:
    return (
        f"node {error.node()} {error.node_name()!r} ({error.node_operator()}): {error.desc()} "
        f"[{error.code()} in {error.func()}, {error.file()}:{error.line()}]"
    )


class _Log(trt.ILogger):  # type: ignore[misc, unused-ignore]
    """Warnings above the progress bar; errors kept for the exception."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)  # super() does not reach a pybind11 base
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        if severity in (trt.ILogger.Severity.INTERNAL_ERROR, trt.ILogger.Severity.ERROR):
            self.errors.append(msg)
        elif severity == trt.ILogger.Severity.WARNING:
            tqdm.write(f"TensorRT: {msg}")


class _Progress(trt.IProgressMonitor):  # type: ignore[misc, unused-ignore]
    """A bar for each phase of the build under way. TensorRT calls it from several threads."""

    def __init__(self, cancelled: threading.Event) -> None:
        trt.IProgressMonitor.__init__(self)
        self._cancelled = cancelled
        self._bars: dict[str, tqdm[Any]] = {}
        self._lock = threading.Lock()

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: SupportsInt) -> None:
        del parent_phase  # TensorRT's signature
        with self._lock:
            self._bars[phase_name] = tqdm(total=int(num_steps), desc=phase_name, unit="step", leave=False)

    def step_complete(self, phase_name: str, step: SupportsInt) -> bool:
        """False asks TensorRT to give the build up."""
        with self._lock:
            if (bar := self._bars.get(phase_name)) is not None:
                bar.update(int(step) + 1 - bar.n)
        return not self._cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        with self._lock:
            if (bar := self._bars.pop(phase_name, None)) is not None:
                bar.close()

    def close(self) -> None:
        """A cancelled build does not finish all its phases."""
        with self._lock:
            for bar in self._bars.values():
                bar.close()
