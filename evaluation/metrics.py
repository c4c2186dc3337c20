"""The scored metrics, each named once, and the scores of one model's answers by age group with their intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from math import isnan, nan
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from contract.files import replacing
from contract.samples import Labels
from contract.spec import AGE_GROUPS, EMOTIONS, GENDERS, Predictions, age_group_index
from evaluation.intervals import Interval, Values, mean_interval
from evaluation.text import markdown_table

_Bool = NDArray[np.bool_]


@dataclass(frozen=True)
class Metric:
    """One scored metric: the mean of what each face contributes, over the faces that have its label.

    `name` is its field of GroupMetrics, its column in every CSV and its field of evaluation.limits.Limits.
    """

    name: str
    label: str
    unit: Literal["years", "%"]  # what is shown in percent is a fraction everywhere else
    better: Literal["lower", "higher"]
    per_face: Callable[[Predictions, Labels], Values]  # [N], NaN for a face without the label
    headline: bool = True  # in the published table, and so in every table and picture beside it

    @property
    def scale(self) -> float:
        """Return what a value is multiplied with to be in the unit."""
        return 100 if self.unit == "%" else 1

    @property
    def title(self) -> str:
        """Return label and unit: `age MAE (years)`."""
        return f"{self.label} ({self.unit})"

    @property
    def change_title(self) -> str:
        """Return label and unit of a difference, which is in points where the value is in percent."""
        return f"{self.label} ({'points' if self.unit == '%' else self.unit})"

    def loss(self, found: float, reference: float) -> float:
        """Return how much worse than the reference a value is; negative where it is better."""
        return found - reference if self.better == "lower" else reference - found


def age_errors_years(predictions: Predictions, labels: Labels) -> Values:
    """Return the absolute error of each age [N]."""
    return np.abs(predictions.age.astype(np.float64) - labels.age)


def within_5_years(predictions: Predictions, labels: Labels) -> Values:
    """Return 1 where the age is at most 5 years off, else 0 [N].

    Their mean is the cumulative score CS(5) of the field (Geng, Zhou and Smith-Miles 2007).
    """
    return np.where(np.isnan(labels.age), nan, age_errors_years(predictions, labels) <= 5)


def gender_correct(predictions: Predictions, labels: Labels) -> Values:
    """Return 1 where the answered gender is the labelled one, else 0 [N]; a probability of 0.5 is male."""
    return np.where(np.isnan(labels.gender), nan, (predictions.gender >= 0.5) == (labels.gender >= 0.5))


def emotion_correct(predictions: Predictions, labels: Labels) -> Values:
    """Return 1 where the largest answered emotion is the largest labelled one, else 0 [N]."""
    return np.where(has_emotion(labels), predictions.emotion.argmax(1) == labels.emotion.argmax(1), nan)


_REGISTERED = (
    Metric("age_mae_years", "age MAE", "years", "lower", age_errors_years),
    Metric("age_within_5_years", "ages within 5 years", "%", "higher", within_5_years, headline=False),
    Metric("gender_accuracy", "gender accuracy", "%", "higher", gender_correct),
    Metric("emotion_accuracy", "emotion accuracy", "%", "higher", emotion_correct),
)
METRICS = {metric.name: metric for metric in _REGISTERED}
HEADLINE = tuple(metric for metric in _REGISTERED if metric.headline)


@dataclass(frozen=True)
class GroupMetrics:
    """One row of the age-group table. Accuracies are fractions; a metric counts only the faces that have its label."""

    group: str
    samples: int
    age_mae_years: Interval
    age_within_5_years: Interval
    age_error_std_years: float  # of the absolute error, as the published table has it
    gender_accuracy: Interval
    emotion_accuracy: Interval
    macro_emotion_recall: float  # mean over the emotions that occur: rare ones count as much as happiness

    def score(self, metric: Metric) -> Interval:
        """Return the value of a metric."""
        interval: Interval = getattr(self, metric.name)
        return interval


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

    @property
    def rows(self) -> tuple[GroupMetrics, ...]:
        """Return every age group, then all faces."""
        return (*self.groups, self.overall)

    def to_frame(self) -> pd.DataFrame:
        """Return a row per age group and one for all, metrics with their intervals as columns."""
        return pd.json_normalize([asdict(m) for m in self.rows], sep="_").rename(
            columns=lambda name: name.removesuffix("_value")
        )

    def write_csv(self, path: Path) -> None:
        """Write `to_frame` as a file, which evaluation.comparison reads."""
        with replacing(path) as temporary:
            self.to_frame().to_csv(temporary, index=False)

    def to_markdown(self) -> str:
        """Return the age-group table as the published report prints it, and what a constant answer would score."""
        header = ["age group", "samples", "age MAE ± std (years)", *(metric.title for metric in HEADLINE[1:])]
        rows = [[f"**{cell}**" if m is self.overall else cell for cell in _cells(m)] for m in self.rows]
        return f"{markdown_table(header, rows)}\n\n{' '.join(self._in_words())}"

    def _in_words(self) -> Iterator[str]:
        b, recall = self.baselines, self.overall.macro_emotion_recall
        if not isnan(recall):
            yield f"Macro emotion recall {recall:.2%}."
        for metric in METRICS.values():
            value = self.overall.score(metric).value
            if not metric.headline and not isnan(value):
                shown = f"{value:.2%}" if metric.unit == "%" else f"{value:.2f} {metric.unit}"
                yield f"{metric.label.capitalize()} {shown}."
        constants = (
            (b.age_mae_years, f"{b.age_years:.0f} years MAE {b.age_mae_years:.2f}"),
            (b.gender_accuracy, f"{b.gender} {b.gender_accuracy:.2%}"),
            (b.emotion_accuracy, f"{b.emotion} {b.emotion_accuracy:.2%}"),
        )
        if known := [words for value, words in constants if not isnan(value)]:
            yield f"Always guessing: {', '.join(known)}."


def _cells(m: GroupMetrics) -> Iterator[str]:
    """Yield a row of the published table; a dash stands for a metric whose label no face of the group has."""
    yield m.group
    yield f"{m.samples:,}"
    for metric in HEADLINE:
        value = m.score(metric)
        spread = f" ± {m.age_error_std_years:.2f}" if metric.name == "age_mae_years" else ""
        yield f"{metric.scale * value.value:.2f}{spread}" if value.known else "-"


def score(predictions: Predictions, labels: Labels, *, seed: int = 0) -> Report:
    """Compare predictions with labels, face by face.

    Raises ValueError where there are none, not one a label, or some are not finite: NaN stands for a missing label, so
    a model that overflowed would lose its worst faces from the means and look better than it is.
    """
    if len(predictions) != len(labels) or not len(labels):
        raise ValueError(f"got {len(predictions)} predictions for {len(labels)} labelled faces")
    if broken := predictions.not_finite():
        raise ValueError(f"{broken} of {len(predictions)} predictions are not finite; check the model's precision")
    per_face = {name: metric.per_face(predictions, labels) for name, metric in METRICS.items()}
    *groups, overall = (
        _group_metrics(group, chosen, per_face, labels, seed) for group, chosen in group_masks(labels).items()
    )
    return Report(
        overall=overall,
        groups=tuple(groups),
        emotion_recall=_emotion_recall(np.ones(len(labels), bool), per_face["emotion_accuracy"], labels),
        baselines=baselines_of(labels),
    )


def group_masks(labels: Labels) -> dict[str, _Bool]:
    """Return which faces [N] are in each age group that has any, in order of age, and last `all`."""
    group_of = np.where(np.isnan(labels.age), -1, age_group_index(np.nan_to_num(labels.age)))
    masks = {AGE_GROUPS[index]: group_of == index for index in np.unique(group_of) if index >= 0}
    return masks | {"all": np.ones(len(labels), bool)}


def _group_metrics(group: str, chosen: _Bool, per_face: dict[str, Values], labels: Labels, seed: int) -> GroupMetrics:
    errors = per_face["age_mae_years"][chosen]
    known = errors[~np.isnan(errors)]
    recall = list(_emotion_recall(chosen, per_face["emotion_accuracy"], labels).values())
    return GroupMetrics(
        group=group,
        samples=int(chosen.sum()),
        age_error_std_years=float(np.std(known)) if len(known) else nan,
        macro_emotion_recall=float(np.mean(recall)) if recall else nan,
        **{name: mean_interval(values[chosen], seed=seed) for name, values in per_face.items()},
    )


def _emotion_recall(chosen: _Bool, correct: Values, labels: Labels) -> dict[str, float]:
    """Return of each emotion that occurs among the chosen the share that was found."""
    known = chosen & has_emotion(labels)
    truth = labels.emotion[known].argmax(1)
    return {EMOTIONS[i]: float(correct[known][truth == i].mean()) for i in np.unique(truth)}


def has_emotion(labels: Labels) -> _Bool:
    """Return which faces [N] have an emotion label."""
    known: _Bool = ~np.isnan(labels.emotion.sum(1))
    return known


def baselines_of(labels: Labels) -> Baselines:
    """Return what constant answers score on these labels; NaN for a label that no face has."""
    age = labels.age[~np.isnan(labels.age)]
    gender = labels.gender[~np.isnan(labels.gender)] >= 0.5
    emotion = np.bincount(labels.emotion[has_emotion(labels)].argmax(1), minlength=len(EMOTIONS))
    median = float(np.median(age)) if len(age) else nan
    male = float(gender.mean()) if len(gender) else nan
    return Baselines(
        age_years=median,
        age_mae_years=float(np.abs(age - median).mean()) if len(age) else nan,
        gender=GENDERS[int(male > 0.5)],
        gender_accuracy=max(male, 1 - male),
        emotion=EMOTIONS[int(emotion.argmax())],
        emotion_accuracy=float(emotion.max() / emotion.sum()) if emotion.sum() else nan,
    )
