"""The one evaluation, whatever answers: predict all faces, refuse broken answers, score, print, write, draw.

    run(batchwise(predict), EvaluationOptions(manifest=(Path("data/ffhq/manifest.csv"),)), title="my model")

training.evaluate, convert.evaluate and clients.evaluate are this with a checkpoint, a model file or a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tqdm import tqdm

from contract.program import UserError
from contract.samples import Protocol, Role, Samples, load_samples
from contract.spec import Images, Predictions
from evaluation.metrics import Report, score

Predict = Callable[[Images], Predictions]  # uint8 [n, 128, 128, 3] -> Predictions of n
PredictStream = Callable[[Iterable[Images]], Iterable[Predictions]]  # all batches at once, answered in order


class EvaluationError(UserError, ValueError):
    """The model's answers cannot be scored: some are not finite."""


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What every evaluate program takes beside the model."""

    manifest: tuple[Path, ...]  # one or several, each evaluated by itself: their labels differ
    role: Role = "test"  # which faces of the protocol
    protocol: Protocol = "holdout"  # published: all labelled faces, training images included
    batch_size: int = 32  # a result does not depend on it
    out: Path | None = None  # the table as CSV; of several datasets with each one's name in the file name
    # A folder for calibration, error by age, confusions, subgroups and worst faces, in numbers and pictures. The
    # contact sheets show the faces themselves, so keep it out of what is published.
    diagnosis: Path | None = None


@dataclass(frozen=True)
class Evaluated:
    """One dataset's faces, the model's answers to them and their report."""

    samples: Samples
    predictions: Predictions
    report: Report


def run(predict: PredictStream, options: EvaluationOptions, *, title: str) -> dict[str, Evaluated]:
    """Evaluate on each dataset by itself, print the tables, and write what the options ask for.

    Returns the evaluations by the name of the dataset. Raises ManifestError before anything is predicted, and
    EvaluationError.
    """
    if options.batch_size < 1:
        raise EvaluationError(f"--batch-size must be 1 or more, got {options.batch_size}")
    datasets = [load_samples(manifest, options.role, options.protocol) for manifest in options.manifest]
    faces = f"{options.role} faces, protocol {options.protocol}"
    found: dict[str, Evaluated] = {}
    for name, samples in zip(dataset_names(options.manifest), datasets, strict=True):
        found[name] = evaluate(predict, samples, batch_size=options.batch_size, name=title)
        report = found[name].report
        print(f"{title} on {name}, {len(samples):,} {faces}\n\n{report.to_markdown()}\n")
        if options.out:
            several = len(datasets) > 1
            report.write_csv(options.out.with_stem(f"{options.out.stem}_{name}") if several else options.out)
    if options.diagnosis:
        from evaluation.diagnosis.written import write_diagnosis  # matplotlib takes a second to import

        answers = {name: (evaluated.predictions, evaluated.samples) for name, evaluated in found.items()}
        write_diagnosis(answers, options.diagnosis, title=f"Diagnosis of {title}, {faces}")
        print(f"wrote {options.diagnosis}")
    return found


def evaluate(predict: PredictStream, samples: Samples, *, batch_size: int = 32, name: str = "the model") -> Evaluated:
    """Predict all samples and score the answers. Raises EvaluationError for answers that are not finite."""
    predictions = predict_all(predict, samples, batch_size=batch_size, name=name)
    return Evaluated(samples, predictions, score(predictions, samples.labels))


def predict_all(
    predict: PredictStream, samples: Samples, *, batch_size: int = 32, name: str = "the model"
) -> Predictions:
    """Return the answers to every sample, in order, and show a progress bar meanwhile.

    Raises EvaluationError for NaN or infinity, which scores would otherwise take for missing labels.
    """
    with tqdm(total=len(samples), desc=f"evaluating {name}", unit="face", leave=False) as bar:

        def counted() -> Iterator[Predictions]:
            for answers in predict(samples.image_batches(batch_size)):
                yield answers
                bar.update(len(answers))

        predictions = Predictions.concatenate(counted())
    if broken := predictions.not_finite():
        raise EvaluationError(
            f"{broken} of {len(predictions)} answers of {name} are not finite; is its precision too low?"
        )
    return predictions


def batchwise(predict: Predict) -> PredictStream:
    """Turn what answers a batch into what answers all batches, one after the other."""
    return partial(map, predict)


def dataset_names(manifests: Sequence[Path]) -> list[str]:
    """Return the name of each dataset, its folder's; a second one of a name gets a number."""
    folders = [manifest.resolve().parent.name for manifest in manifests]
    counts = [folders[: i + 1].count(name) for i, name in enumerate(folders)]
    return [name if count == 1 else f"{name}-{count}" for name, count in zip(folders, counts, strict=True)]
