"""Checkpoint -> ONNX, checked against PyTorch on pictures of faces before it is written.

python -m convert.export_onnx --checkpoint weights/agegendernet-128.safetensors
python -m convert.export_onnx --checkpoint runs/train/best.safetensors --manifest data/synthetic/manifest.csv
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import onnxruntime
import torch
import tyro

from contract import program
from contract.files import replacing
from contract.program import UserError
from contract.repository import file_sha256
from contract.samples import load_samples
from contract.spec import AGE_GROUPS, EMOTIONS, GENDERS, IMAGE, OUTPUTS, Images, Predictions
from convert.serving_model import ServingModel
from evaluation.agreement import check_answers, describe, excesses
from evaluation.limits import EXPORT_FP16, EXPORT_FP32, Limits
from training.data.synthetic import synthesize
from training.network.checkpoint import Checkpoint, load_checkpoint

OPSET = 20
Precision = Literal["fp32", "fp16"]
LIMITS: dict[Precision, Limits] = {"fp32": EXPORT_FP32, "fp16": EXPORT_FP16}


@dataclass(frozen=True)
class ExportConfig:
    """Write a checkpoint as an ONNX model: canonical uint8 images in, years and probabilities out, any batch size."""

    checkpoint: Path  # best.safetensors of a run
    manifest: Path | None = None  # its test faces check the export; without one, faces drawn for it do
    out: Path = Path("model_repository/agegendernet/1/model.onnx")
    precision: Precision = "fp32"  # fp16: the trunk in half precision, which is where TensorRT takes it from
    # fp16: half the size. The graph widens them before use, so answers stay those of fp32; refused where not exact.
    weights: Precision = "fp32"
    check_images: int = 64  # enough for every layer to see real values; more only takes longer


class ExportError(UserError, RuntimeError):
    """The exported model does not answer as PyTorch does; nothing was written."""


def export(
    checkpoint: Checkpoint,
    out: Path,
    *,
    precision: Precision,
    images: Images,
    weights: Precision = "fp32",
    source_sha256: str = "",
) -> str:
    """Export, compare on `images`, write `out` and return what was compared.

    Raises ExportError past the limits, and PrecisionError for weights that half precision does not hold exactly.
    """
    half = precision == "fp16"  # such a trunk is stored as it computes
    model = to_onnx(ServingModel(checkpoint, half=half, stored_half=weights == "fp16" and not half).eval())
    summary = check_export(model, ServingModel(checkpoint).eval(), images, precision)
    onnx.helper.set_model_props(model, _metadata(checkpoint, precision, source_sha256))
    with replacing(out) as temporary:
        onnx.save(model, temporary)
    return summary


def to_onnx(serving_model: ServingModel) -> onnx.ModelProto:
    """Trace with names and the dynamic batch from the contract."""
    program = torch.onnx.export(
        serving_model,
        (torch.zeros(2, *IMAGE.dims, dtype=torch.uint8),),  # a batch of 1 would be taken for a constant
        input_names=[IMAGE.name],
        output_names=[tensor.name for tensor in OUTPUTS],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=OPSET,
        external_data=False,
        verbose=False,
    )
    assert program is not None  # None only where the exporter itself writes the file
    model = program.model_proto
    _forget_traces(model)
    onnx.checker.check_model(model, full_check=True)
    return model


def _forget_traces(model: onnx.ModelProto) -> None:
    """Remove which line of which file on this machine each node comes from: it is nobody else's business."""
    for node in model.graph.node:
        kept = [entry for entry in node.metadata_props if entry.key != "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        node.metadata_props.extend(kept)


def check_export(model: onnx.ModelProto, reference: ServingModel, images: Images, precision: Precision) -> str:
    """Compare ONNX Runtime with PyTorch in float32 on pictures of faces, and return the largest differences as text.

    Raises ExportError past the limits of the precision.
    """
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [tensor.name for tensor in OUTPUTS]
    found = Predictions.from_outputs(dict(zip(names, session.run(names, {IMAGE.name: images}), strict=True)))
    with torch.inference_mode():
        expected = Predictions.from_outputs(
            {name: tensor.numpy() for name, tensor in zip(names, reference(torch.from_numpy(images)), strict=True)}
        )
    checks = check_answers(found, expected, LIMITS[precision])
    summary = f"{len(images)} faces, {precision} ONNX against fp32 PyTorch, at most: {describe(checks)}"
    if excesses(checks):
        raise ExportError(f"{summary}. Nothing was written; try another torch, onnx or onnxscript version")
    return summary


def _check_images(config: ExportConfig) -> Images:
    if config.manifest is not None:
        return next(load_samples(config.manifest).image_batches(config.check_images))
    return np.stack([np.asarray(synthesize(0, index)[0]) for index in range(config.check_images)])


def _metadata(checkpoint: Checkpoint, precision: Precision, source_sha256: str) -> dict[str, str]:
    values: dict[str, Any] = {
        "contract": [str(tensor) for tensor in (IMAGE, *OUTPUTS)],
        "emotions": EMOTIONS,
        "genders": GENDERS,
        "age_groups": AGE_GROUPS,
        "resolution": checkpoint.resolution,
        "precision": precision,
        "checkpoint_sha256": source_sha256,
        "config": checkpoint.config,
        "metrics": checkpoint.metrics,
    }
    return {name: json.dumps(value) for name, value in values.items()}


def main(config: ExportConfig) -> None:
    images = _check_images(config)
    checkpoint = load_checkpoint(config.checkpoint)
    summary = export(
        checkpoint,
        config.out,
        precision=config.precision,
        images=images,
        weights=config.weights,
        source_sha256=file_sha256(config.checkpoint),
    )
    print(summary)
    print(f"wrote {config.out} ({config.out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(ExportConfig)))
