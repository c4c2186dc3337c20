"""May one model stand for another? The one type of limits, and every limit that the project holds models to."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """How far answers may be from the reference's, and how much worse the scores may be; None limits nothing."""

    # The largest difference on any face.
    age_years: float | None = None
    gender_probability: float | None = None
    emotion_probability: float | None = None
    # What a score may lose, by its name in evaluation.metrics; accuracies are fractions: 0.01 is one point.
    age_mae_years: float | None = None
    age_within_5_years: float | None = None
    gender_accuracy: float | None = None
    emotion_accuracy: float | None = None
    # One face that turned wrong is within every limit of an accuracy: of few faces it is more than the limit.
    allow_one_face: bool = False

    @classmethod
    def of_answers(cls, *, age_years: float, probability: float) -> Limits:
        """Limit the largest difference on any face alone, both probabilities alike."""
        return cls(age_years=age_years, gender_probability=probability, emotion_probability=probability)

    def of(self, name: str) -> float | None:
        """Return the limit of a head's difference or of a metric's loss by its name."""
        limit: float | None = getattr(self, name)
        return limit


# ONNX against PyTorch: where the export of the same arithmetic must agree, and where half precision is surely broken.
EXPORT_FP32 = Limits.of_answers(age_years=1e-3, probability=1e-5)
EXPORT_FP16 = Limits.of_answers(age_years=0.5, probability=0.05)

# Weights rounded to half precision against those trained: rounding moves answers by a tenth of that.
RELEASE = Limits.of_answers(age_years=0.25, probability=0.01)

# Runtimes against PyTorch. The same arithmetic summed in another order: fifty times what an untrained network, which
# amplifies it, showed.
PARITY_FP32 = Limits.of_answers(age_years=0.02, probability=1e-3)
# Half precision: twenty times what a trained network showed on real faces. An untrained one can exceed it.
PARITY_FP16 = Limits.of_answers(age_years=0.5, probability=0.05)

# INT8 against FP32, over all test faces of a dataset: single faces may move, the scores may not.
INT8 = Limits(
    age_mae_years=0.05,
    age_within_5_years=0.005,  # 8 of 1,000 faces of UTKFace crossed 5 years, 6 of them for the better
    gender_accuracy=0.002,
    emotion_accuracy=0.003,
    allow_one_face=True,
)

# A new version against the one that it replaces: over all faces, and in an age group, which has fewer and more chance.
PROMOTION_OVERALL = Limits(age_mae_years=0.05, age_within_5_years=0.01, gender_accuracy=0.005, emotion_accuracy=0.01)
PROMOTION_GROUP = Limits(age_mae_years=0.25, age_within_5_years=0.03, gender_accuracy=0.02, emotion_accuracy=0.03)
