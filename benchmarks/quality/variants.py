"""The compared variants: the plain model with one change at a time."""

from dataclasses import dataclass, field
from typing import Any

from benchmarks.quality.sets import DataSet
from mmtpp.core.representation.compression import RECENT_FULL

PLAIN = "plain"
MIXTURE = "plain and temporal expert"
MIXTURE_WITH_IMAGES = "plain and temporal expert with images"
PUBLISHED = "temporal, tokens (paper)"
RECENT = "recent in full, older one token each"


@dataclass(frozen=True, slots=True)
class Variant:
    """One change of the plain model.

    Attributes:
        name: Name of the row in the table.
        changes: Changed settings.
        one_target: Stage 2 trains on one target per window, like the published code, not on all.
        is_short: Whether the variant has the short budget.
        without_texts: Whether the model reads a store without the texts.
    """

    name: str
    changes: dict[str, Any] = field(default_factory=dict)
    one_target: bool = False
    is_short: bool = True
    without_texts: bool = False


def variants(data: DataSet, *, similar_fraction: float) -> list[Variant]:
    """All variants of a data set.

    Args:
        data: The data set.
        similar_fraction: Share of events that temporal compression marks as similar. The variant
            with random drops drops the same share.
    """
    chosen = [Variant(PLAIN, is_short=False)]
    if data.is_varied or data.has_images or data.compares_texts:
        chosen.append(Variant(f"{PLAIN}, short"))
    if data.is_varied:
        chosen += _varied(data, similar_fraction)
    if data.has_images:
        chosen.append(Variant("without images", {"template.images": "none"}))
    if data.compares_texts:
        chosen += [Variant("without texts", without_texts=True), _recent()]
    if data.has_images and data.compares_texts:
        changes = {"template.images": "none"}
        chosen.append(Variant("without images and texts", changes, without_texts=True))
    return chosen


def _recent(older_fraction: float = 0.25) -> Variant:
    """Recent events in full, and a part of the context for older ones of one token each."""
    settings = {"strategy": RECENT_FULL, "older_fraction": older_fraction}
    return Variant(RECENT, {f"compression.{key}": value for key, value in settings.items()})


def _varied(data: DataSet, similar_fraction: float) -> list[Variant]:
    """Variants of labels, time codes, template, compression and targets."""

    def compressed(strategy: str, **more: object) -> dict[str, Any]:
        settings = {"strategy": strategy, "delta": data.delta, "run_encoding": "run_length", **more}
        return {f"compression.{key}": value for key, value in settings.items()}

    variants = [
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
        _recent(),
        Variant(f"{RECENT}, half of the context", _recent(0.5).changes),
        Variant("one target a window (paper)", one_target=True),
    ]
    variants += [
        Variant(
            f"{PUBLISHED}, Delta {delta:g}",
            compressed("temporal", run_encoding="token", delta=delta),
        )
        for delta in data.other_deltas
    ]
    return variants
