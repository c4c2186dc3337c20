"""A server's state as the clients report it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from clients.messages import LIVE, READY, SERVER_METADATA, STATISTICS, Call, Reply

HEALTH_CALLS = (Call(LIVE), Call(READY), Call(SERVER_METADATA), Call(STATISTICS))  # their replies share no field


@dataclass(frozen=True)
class ModelStatistics:
    """What one version of a model has done since it was loaded; times are means."""

    name: str
    version: str
    images: int
    requests: int  # that succeeded
    failures: int
    average_batch: float  # images per execution: what dynamic batching achieves
    queue_ms: float  # per request
    compute_ms: float  # per request: input, inference and output


@dataclass(frozen=True)
class Health:
    """A server's state."""

    live: bool
    ready: bool
    server: str
    version: str
    models: tuple[ModelStatistics, ...]

    @classmethod
    def of(cls, replies: Iterable[Reply]) -> Health:
        """Read the replies to HEALTH_CALLS."""
        fields = {name: value for reply in replies for name, value in reply.items()}
        return cls(
            live=fields["live"],
            ready=fields["ready"],
            server=fields["name"],
            version=fields["version"],
            models=tuple(map(_statistics, fields.get("model_stats", ()))),
        )

    def to_text(self) -> str:
        """Return a line on the server and one on each model."""
        lines = [f"{self.server} {self.version}: {'live' if self.live else 'not live'}, "
                 f"{'ready' if self.ready else 'not ready'}"]  # fmt: skip
        header = ("model", "images", "requests", "failures", "average batch", "queue ms", "compute ms")
        lines.append("{:<20} {:>9} {:>9} {:>9} {:>14} {:>9} {:>11}".format(*header))
        lines += [
            f"{f'{m.name}/{m.version}':<20} {m.images:>9,} {m.requests:>9,} {m.failures:>9,} {m.average_batch:>14.2f} "
            f"{m.queue_ms:>9.2f} {m.compute_ms:>11.2f}"
            for m in self.models
        ]
        return "\n".join(lines)


def _statistics(fields: dict[str, Any]) -> ModelStatistics:
    durations = fields["inference_stats"]
    requests, images = int(durations["success"]["count"]), int(fields["inference_count"])
    return ModelStatistics(
        name=fields["name"],
        version=fields["version"],
        images=images,
        requests=requests,
        failures=int(durations["fail"]["count"]),
        average_batch=images / max(int(fields["execution_count"]), 1),
        queue_ms=_mean_ms(durations, requests, "queue"),
        compute_ms=_mean_ms(durations, requests, "compute_input", "compute_infer", "compute_output"),
    )


def _mean_ms(durations: dict[str, Any], requests: int, *parts: str) -> float:
    return sum(int(durations[part]["ns"]) for part in parts) / 1e6 / max(requests, 1)
