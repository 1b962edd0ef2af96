"""What is compared: the plain model and one change at a time."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.quality.sets import DataSet

PLAIN = "plain"
PUBLISHED = "temporal, tokens (paper)"


@dataclass(frozen=True, slots=True)
class Variant:
    """A change against the plain model.

    Attributes:
        name: of the row in the table.
        changes: settings.
        is_short: it has the short budget, which its changes are compared at.
        one_target: stage 2 trains on one target a window, as published, instead of on all.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    one_target: bool = False
    is_short: bool = True


def variants(data: DataSet, *, similar_fraction: float) -> list[Variant]:
    """All variants of a data set.

    Args:
        data: the set.
        similar_fraction: of its events, marked by temporal compression; so much is dropped by
            chance for comparison.
    """

    def compressed(strategy: str, **more: object) -> dict[str, Any]:
        settings = {"strategy": strategy, "delta": data.delta, "run_encoding": "run_length", **more}
        return {f"compression.{key}": value for key, value in settings.items()}

    variants = [
        Variant(PLAIN, is_short=False),
    ]
    if not data.is_varied:
        return variants
    variants += [
        Variant(f"{PLAIN}, short"),
        Variant("hard time labels (paper)", {"training.time_smoothing": 0.0}),
        Variant("time codes of 3 bytes", {"template.time_bytes": 3}),
        Variant("time codes of 4 bytes", {"template.time_bytes": 4}),
        Variant("published template", {"template.style": "paper", "template.time_bytes": 4}),
        Variant(PUBLISHED, compressed("temporal", run_encoding="token")),
        Variant("temporal, runs", compressed("temporal")),
        Variant("anchored, runs", compressed("anchored")),
        Variant("relative, runs", compressed("relative", delta=0.2)),
        Variant("hybrid, runs", compressed("hybrid")),
        Variant(
            "random drop, runs", compressed("random_drop", drop_fraction=round(similar_fraction, 3))
        ),
        Variant("one target a window (paper)", one_target=True),
    ]
    variants += [
        Variant(
            f"{PUBLISHED}, Delta {delta:g}",
            compressed("temporal", run_encoding="token", delta=delta),
        )
        for delta in data.other_deltas
    ]
    if data.has_images:
        variants.append(Variant("without images", {"template.images": "none"}))
    return variants
