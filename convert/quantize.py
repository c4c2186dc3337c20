"""FP32 ONNX -> INT8 ONNX by post-training quantization, kept only where it scores as the FP32 model does.

python -m convert.quantize --onnx model_repository/agegendernet/1/model.onnx --manifest data/synthetic/manifest.csv
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import onnx
import tyro

from contract import program
from contract.files import replacing
from contract.program import UserError
from contract.repository import file_sha256
from convert.engine.source import SourceModelError, read_source
from convert.engine.typed_graph import for_tensorrt
from convert.errors import ModelFileError
from convert.int8.bias_correction import bias_corrected
from convert.int8.gate import gate
from convert.int8.graph import OPERATORS, Target, quantized
from convert.int8.ranges import CalibrationOptions, activation_ranges, training_faces
from convert.int8.saturation import PAIR_LIMIT, saturating_weights, without_vnni
from convert.runtimes import load
from evaluation.limits import INT8, Limits
from evaluation.run import Predict

_SERVED, _WITHOUT_VNNI = "int8 in openvino", "int8 in openvino without VNNI"


class GateError(UserError, RuntimeError):
    """The INT8 model is worse than allowed; the message names each score that is."""


@dataclass(frozen=True)
class QuantizeConfig:
    """Calibrate on training faces, write explicit Q/DQ, and compare with FP32 on test faces before it gets its name."""

    manifest: tuple[Path, ...]  # of one dataset or several: each brings training faces, and each is tested on
    onnx: Path = Path("model_repository/agegendernet/1/model.onnx")  # FP32
    out: Path | None = None  # by default model.int8.onnx beside the FP32 model
    # The file for OpenVINO is also what python -m convert.build_engine takes; ONNX Runtime is slow with it.
    target: Annotated[Target, tyro.conf.arg(name="for")] = "openvino"
    tensorrt: bool = True  # judge the form that TensorRT gets, too; without it the engine's build refuses the file
    check_only: bool = False  # compare the file that is there
    calibration: tyro.conf.OmitArgPrefixes[CalibrationOptions] = field(default_factory=CalibrationOptions)
    limits: Limits = INT8
    report: Path | None = None  # the comparison as CSV

    @property
    def destination(self) -> Path:
        """Return where the INT8 model goes."""
        return self.out or self.onnx.with_name(f"{self.onnx.stem}.int8.onnx")


def quantize(config: QuantizeConfig) -> onnx.ModelProto:
    """Return the INT8 model, describing how it was made. Raises SourceModelError, ManifestError."""
    read_source(config.onnx, "fp32")
    source = onnx.load(config.onnx)
    stored = {tensor.name for tensor in source.graph.initializer}
    if any(node.op_type == "Conv" and node.input[1] not in stored for node in source.graph.node):
        raise SourceModelError(f"{config.onnx} widens its weights as it runs; export it without --weights fp16")
    faces = training_faces(config.manifest, config.calibration)
    ranges = activation_ranges(config.onnx, faces, OPERATORS[config.target], config.calibration)
    model = bias_corrected(quantized(source, ranges, config.target), source, faces)
    properties = {p.key: p.value for p in source.metadata_props}
    made = asdict(config.calibration) | {
        "for": config.target,
        "judged_for_tensorrt": config.target == "openvino" and config.tensorrt,
        "faces": len(faces),
        "datasets": [manifest.parent.name for manifest in config.manifest],
        "source_sha256": file_sha256(config.onnx),
    }
    properties |= {"precision": json.dumps("int8"), "quantization": json.dumps(made)}
    onnx.helper.set_model_props(model, properties)
    return model


def check_int8(config: QuantizeConfig, int8: Path) -> None:
    """Prove that no processor overflows, then hold the file against the FP32 model in the runtime that serves it.

    Raises GateError, ModelFileError.
    """
    if found := saturating_weights(onnx.load(int8)):
        raise GateError(
            f"processors without VNNI would answer wrongly: two weights of {', '.join(found)} add up to "
            f"{max(found.values())}, and products overflow above {PAIR_LIMIT}; quantize the FP32 model again"
        )
    reference = load(config.onnx, "openvino")
    alike = (_SERVED, _WITHOUT_VNNI) if config.target == "openvino" else None
    with _candidates(config, int8) as candidates:
        table, failures = gate(reference, candidates, config.manifest, config.limits, alike=alike)
    if config.report is not None:
        with replacing(config.report) as temporary:
            table.to_csv(temporary, index=False)
    if failures:
        raise GateError("worse than FP32 by more than allowed:\n" + "\n".join(failures))


@contextmanager
def _candidates(config: QuantizeConfig, int8: Path) -> Iterator[dict[str, Predict]]:
    """Yield the file where it is served.

    What OpenVINO serves is also judged in the arithmetic of older processors and, unless that is left out, as TensorRT
    gets it, with half the steps and in half precision. ONNX Runtime's arithmetic is this machine's alone: nothing but
    the proof speaks for others.
    """
    if config.target == "onnxruntime":
        yield {"int8 in onnxruntime": load(int8, "onnx")}
        return
    served = load(int8, "openvino")
    with TemporaryDirectory() as folder, without_vnni(int8) as served_elsewhere:
        candidates = {_SERVED: served, _WITHOUT_VNNI: served_elsewhere}
        if config.tensorrt:
            parsed = Path(folder, "parsed.onnx")
            onnx.save(for_tensorrt(onnx.load(int8)), parsed)
            candidates["int8 as TensorRT gets it"] = load(parsed, "openvino")
        yield candidates


def main(config: QuantizeConfig) -> None:
    out = config.destination
    if config.check_only:
        if not out.is_file():
            raise ModelFileError(f"{out} does not exist; make it by the same command without --check-only")
        check_int8(config, out)
        print(f"{out} is within the limits")
        return
    try:
        with replacing(out) as temporary:
            onnx.save(quantize(config), temporary)
            check_int8(config, temporary)
    except GateError:
        out.unlink(missing_ok=True)  # one of an earlier run would be served beside other FP32 weights
        raise
    print(f"within the limits; wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(QuantizeConfig)), stopped="interrupted; nothing was written", also=(ValueError,))
