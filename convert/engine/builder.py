"""Every call of NVIDIA's builder, for TensorRT 10 and 11 and TensorRT-RTX: ONNX model -> plan and what is proven of it.

The two majors do not differ in what is called here: STRONGLY_TYPED is required by 10 and ignored by 11, which knows no
other way, and precision flags, which 11 removed, are of no use in a strongly typed network. TensorRT-RTX has the API of
11; what else is its own is in convert.engine.library, which says too which of them this module has imported.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsInt

from tqdm import tqdm

from contract.files import replacing
from contract.program import UserError
from contract.spec import IMAGE
from convert.engine import library
from convert.engine.layer_types import ParsedLayer, ParsedNetwork, TypeProof, prove_types
from convert.engine.options import BuildOptions

if TYPE_CHECKING:
    import tensorrt as trt  # type: ignore[import-not-found, unused-ignore]
else:
    trt = library.load()

TRAITS = library.selected()
VERSION: str = trt.__version__
NAME = f"{TRAITS.title} {VERSION}"


class BuildError(UserError, RuntimeError):
    """The library refused the model or the settings; the message holds everything that it said."""


@dataclass(frozen=True)
class BuiltEngine:
    """A plan, what its network was proven to be before the build, and what TensorRT's inspector says after it."""

    plan: bytes
    types: TypeProof
    compute_capabilities: tuple[str, ...]  # of the GPUs that it is for; none where it is for the GPU of this machine
    inspector_json: str | None  # None where no GPU is needed, and so none can show the engine


def build(onnx: bytes, options: BuildOptions, stated: Mapping[str, str], cancelled: threading.Event) -> BuiltEngine:
    """Build a plan, once every type of the parsed network is as stated.

    stated: the precision of each convolution by its node's name. Raises PrecisionError before the build, and
    BuildError, also soon after `cancelled` is set.
    """
    progress = _Progress(cancelled)
    _LOG.errors.clear()
    try:
        return _build(onnx, options, stated, progress)
    finally:
        progress.close()


def _build(onnx: bytes, options: BuildOptions, stated: Mapping[str, str], progress: _Progress) -> BuiltEngine:
    builder = trt.Builder(_LOG)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, _LOG)
    _check_parsed(bool(parser.parse(onnx)), parser)
    types = prove_types(_parsed(network), stated)
    config = _configure(builder, options)
    capabilities = () if TRAITS.builds_on_gpu else _set_compute_capabilities(config, options.compute_capabilities)
    config.progress_monitor = progress
    plan = _check_built(builder.build_serialized_network(network, config))
    if not TRAITS.builds_on_gpu:
        return BuiltEngine(plan, types, capabilities, None)
    _keep_timing_cache(config, options.timing_cache)
    return BuiltEngine(plan, types, capabilities, _inspect(trt.Runtime(_LOG), plan))


def _parsed(network: trt.INetworkDefinition) -> ParsedNetwork:
    """Read the network into plain data. A tensor that a layer does without is left out."""
    layers, types = [], {}
    for layer in (network.get_layer(index) for index in range(network.num_layers)):
        inputs = [tensor for index in range(layer.num_inputs) if (tensor := layer.get_input(index)) is not None]
        outputs = [layer.get_output(index) for index in range(layer.num_outputs)]
        names = (tuple(tensor.name for tensor in tensors) for tensors in (inputs, outputs))
        layers.append(ParsedLayer(layer.name, layer.type.name, *names))
        types.update({tensor.name: tensor.dtype.name for tensor in (*inputs, *outputs)})
    inputs_of_all = tuple(network.get_input(index).name for index in range(network.num_inputs))
    outputs_of_all = tuple(network.get_output(index).name for index in range(network.num_outputs))
    return ParsedNetwork(tuple(layers), types, inputs_of_all, outputs_of_all)


def _check_parsed(parsed: bool, parser: trt.OnnxParser) -> None:
    if not parsed:
        errors = [_describe(parser.get_error(index)) for index in range(parser.num_errors)]
        raise BuildError(f"{NAME} cannot parse the ONNX model:\n" + "\n".join(errors))


def _check_built(plan: trt.IHostMemory | None) -> bytes:
    if plan is None:
        raise BuildError(f"{NAME} built no engine:\n" + "\n".join(_LOG.errors))
    return bytes(plan)


def _configure(builder: trt.Builder, options: BuildOptions) -> trt.IBuilderConfig:
    config = builder.create_builder_config()
    config.builder_optimization_level = options.optimization_level
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the proof of precision reads it
    if options.hardware_compatibility != "none":
        config.hardware_compatibility_level = {
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
        raise BuildError(f"{NAME} refuses the optimization profile {options.profile}")
    if TRAITS.builds_on_gpu:
        _use_timing_cache(config, options.timing_cache)
    return config


def _set_compute_capabilities(config: Any, asked: tuple[str, ...]) -> tuple[str, ...]:
    """Name the GPUs that a plan of TensorRT-RTX is for, by default all but the oldest; return them."""
    known = {
        f"{name[2:-1]}.{name[-1]}": value
        for name, value in trt.ComputeCapability.__members__.items()  # type: ignore[attr-defined, unused-ignore]
        if name.startswith("SM")
    }
    chosen = asked or tuple(capability for capability in known if capability not in TRAITS.older_gpus)
    if unknown := [capability for capability in chosen if capability not in known]:
        raise BuildError(f"{NAME} builds for compute capabilities {', '.join(known)}, not {', '.join(unknown)}")
    config.num_compute_capabilities = len(chosen)
    for index, capability in enumerate(chosen):
        config.set_compute_capability(known[capability], index)
    return chosen


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


def _inspect(runtime: trt.Runtime, plan: bytes) -> str:
    runtime.engine_host_code_allowed = True  # a version-compatible plan carries its own runtime
    engine: trt.ICudaEngine | None = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise BuildError(f"{NAME} cannot load the plan that it has just built:\n" + "\n".join(_LOG.errors))
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
            tqdm.write(f"{TRAITS.title}: {msg}")


_LOG = _Log()  # one for the process: NVIDIA's library keeps the first that it is given, and ignores every other


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
        """Return False to have TensorRT give the build up."""
        with self._lock:
            if (bar := self._bars.get(phase_name)) is not None:
                bar.update(int(step) + 1 - bar.n)
        return not self._cancelled.is_set()

    def phase_finish(self, phase_name: str) -> None:
        with self._lock:
            if (bar := self._bars.pop(phase_name, None)) is not None:
                bar.close()

    def close(self) -> None:
        """Close the bars of the phases that a cancelled build did not finish."""
        with self._lock:
            for bar in self._bars.values():
                bar.close()
