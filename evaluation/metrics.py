"""The one evaluation: any runtime's predictions become the same report by age group, with intervals and baselines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.files import replacing
from contract.samples import Labels, Samples
from contract.spec import AGE_GROUPS, EMOTIONS, GENDERS, Images, Predictions, age_group_index
from evaluation.intervals import Interval, mean_interval

Predict = Callable[[Images], Predictions]
PredictStream = Callable[[Iterable[Images]], Iterable[Predictions]]

_Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class GroupMetrics:
    """One row of the age-group table. Accuracies are fractions; a metric counts only the faces that have its label."""

    group: str
    samples: int
    age_mae_years: Interval
    age_error_std_years: float  # of the absolute error, as the published table has it
    gender_accuracy: Interval
    emotion_accuracy: Interval  # argmax against argmax
    macro_emotion_recall: float  # mean over the emotions that occur: rare ones count as much as happiness


@dataclass(frozen=True)
class Baselines:
    """What always answering the same would score on these faces."""

    age_years: float  # the median, which no other constant beats
    age_mae_years: float
    gender: str
    gender_accuracy: float
    emotion: str
    emotion_accuracy: float


@dataclass(frozen=True)
class Report:
    """The evaluation of one model over one set of faces."""

    overall: GroupMetrics
    groups: tuple[GroupMetrics, ...]  # in the order of AGE_GROUPS, empty groups left out
    emotion_recall: dict[str, float]
    baselines: Baselines

    def to_frame(self) -> pd.DataFrame:
        """A row per age group and one for all, metrics with their intervals as columns."""
        return pd.json_normalize([asdict(m) for m in (*self.groups, self.overall)], sep="_").rename(
            columns=lambda name: name.removesuffix("_value")
        )

    def write_csv(self, path: Path) -> None:
        """`to_frame` as a file, which evaluation.comparison reads."""
        with replacing(path) as temporary:
            self.to_frame().to_csv(temporary, index=False)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def to_markdown(self) -> str:
        """The age-group table as the published report prints it, then what a constant answer would have scored."""
        rows = [_markdown_row(m) for m in self.groups] + [_markdown_row(self.overall, emphasis="**")]
        return "\n".join([
            "| age group | samples | age MAE ± std (years) | gender accuracy (%) | emotion accuracy (%) |",
            "|---|---:|---:|---:|---:|",
            *rows,
            "",
            " ".join(self._in_words()),
        ])  # fmt: skip

    def _in_words(self) -> Iterator[str]:
        b, recall = self.baselines, self.overall.macro_emotion_recall
        if not isnan(recall):
            yield f"Macro emotion recall {recall:.2%}."
        constants = (
            (b.age_mae_years, f"{b.age_years:.0f} years MAE {b.age_mae_years:.2f}"),
            (b.gender_accuracy, f"{b.gender} {b.gender_accuracy:.2%}"),
            (b.emotion_accuracy, f"{b.emotion} {b.emotion_accuracy:.2%}"),
        )
        if known := [words for value, words in constants if not isnan(value)]:
            yield f"Always guessing: {', '.join(known)}."


def _markdown_row(m: GroupMetrics, emphasis: str = "") -> str:
    """A dash stands for a metric whose label no face of the group has."""
    age, gender, emotion = m.age_mae_years, m.gender_accuracy, m.emotion_accuracy
    cells = (
        m.group,
        f"{m.samples:,}",
        f"{age:.2f} ± {m.age_error_std_years:.2f}" if age.known else "-",
        f"{100 * gender.value:.2f}" if gender.known else "-",
        f"{100 * emotion.value:.2f}" if emotion.known else "-",
    )
    return "| " + " | ".join(f"{emphasis}{cell}{emphasis}" for cell in cells) + " |"


def evaluate(predict: Predict, samples: Samples, *, batch_size: int = 32) -> Report:
    """Run `predict` (uint8 [n, 128, 128, 3] -> Predictions of n) over the samples, batch after batch, and score it."""
    return evaluate_stream(partial(map, predict), samples, batch_size=batch_size)


def evaluate_stream(predict_stream: PredictStream, samples: Samples, *, batch_size: int = 32) -> Report:
    """The same for what takes all batches at once and answers in order, such as a client with many in flight."""
    return score(Predictions.concatenate(predict_stream(samples.image_batches(batch_size))), samples.labels)


def score(predictions: Predictions, labels: Labels, *, seed: int = 0) -> Report:
    """Compare predictions with labels, face by face.

    Raises ValueError where there are none, not one a label, or some are not finite: NaN stands for a missing label, so
    a model that overflowed would lose its worst faces from the means and look better than it is.
    """
    if len(predictions) != len(labels) or not len(labels):
        raise ValueError(f"got {len(predictions)} predictions for {len(labels)} labelled faces")
    if broken := predictions.not_finite():
        raise ValueError(f"{broken} of {len(predictions)} predictions are not finite; check the model's precision")
    per_face = PerFace.of(predictions, labels)
    group_of = np.where(np.isnan(labels.age), -1, age_group_index(np.nan_to_num(labels.age)))
    groups = tuple(per_face.metrics(AGE_GROUPS[i], group_of == i, seed) for i in np.unique(group_of) if i >= 0)
    return Report(
        overall=per_face.metrics("all", np.ones(len(labels), bool), seed),
        groups=groups,
        emotion_recall=per_face.emotion_recall(np.ones(len(labels), bool)),
        baselines=baselines_of(labels),
    )


@dataclass(frozen=True)
class PerFace:
    """What each face contributes [N]; NaN where it lacks the label."""

    emotion: NDArray[np.int64]  # index of the labelled emotion, where there is one
    age_error_years: NDArray[np.float64]
    gender_correct: NDArray[np.float64]
    emotion_correct: NDArray[np.float64]

    @classmethod
    def of(cls, predictions: Predictions, labels: Labels) -> PerFace:
        gender = (predictions.gender >= 0.5) == (labels.gender >= 0.5)
        known = has_emotion(labels)
        emotion = predictions.emotion.argmax(1) == labels.emotion.argmax(1)
        return cls(
            labels.emotion.argmax(1),
            np.abs(predictions.age.astype(np.float64) - labels.age),
            np.where(np.isnan(labels.gender), np.nan, gender),
            np.where(known, emotion, np.nan),
        )

    def metrics(self, group: str, chosen: _Bool, seed: int) -> GroupMetrics:
        age_error = self.age_error_years[chosen]
        recall = list(self.emotion_recall(chosen).values())
        return GroupMetrics(
            group=group,
            samples=int(chosen.sum()),
            age_mae_years=mean_interval(age_error, seed=seed),
            age_error_std_years=float(np.std(known)) if len(known := age_error[~np.isnan(age_error)]) else float("nan"),
            gender_accuracy=mean_interval(self.gender_correct[chosen], seed=seed),
            emotion_accuracy=mean_interval(self.emotion_correct[chosen], seed=seed),
            macro_emotion_recall=float(np.mean(recall)) if recall else float("nan"),
        )

    def emotion_recall(self, chosen: _Bool) -> dict[str, float]:
        """Of each emotion that occurs, the share that was found."""
        known = chosen & ~np.isnan(self.emotion_correct)
        truth, correct = self.emotion[known], self.emotion_correct[known]
        return {EMOTIONS[i]: float(correct[truth == i].mean()) for i in np.unique(truth)}


def has_emotion(labels: Labels) -> _Bool:
    known: _Bool = ~np.isnan(labels.emotion.sum(1))
    return known


def baselines_of(labels: Labels) -> Baselines:
    """What constant answers score on these labels; NaN for a label that no face has."""
    age = labels.age[~np.isnan(labels.age)]
    gender = labels.gender[~np.isnan(labels.gender)] >= 0.5
    emotion = np.bincount(labels.emotion[has_emotion(labels)].argmax(1), minlength=len(EMOTIONS))
    median = float(np.median(age)) if len(age) else float("nan")
    male = float(gender.mean()) if len(gender) else float("nan")
    return Baselines(
        age_years=median,
        age_mae_years=float(np.abs(age - median).mean()) if len(age) else float("nan"),
        gender=GENDERS[int(male > 0.5)],
        gender_accuracy=max(male, 1 - male),
        emotion=EMOTIONS[int(emotion.argmax())],
        emotion_accuracy=float(emotion.max() / emotion.sum()) if emotion.sum() else float("nan"),
    )
