"""Measuring a data set: what is in it, and what each compression would make of it."""

from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.config.schema import RunConfig
from mmtpp.core.compression import Compression, compress
from mmtpp.core.events import NO_FRAME, Events
from mmtpp.core.packing import pack
from mmtpp.core.shorten import fit_texts, shorten, shorten_to_fit
from mmtpp.core.template import STYLES, Template
from mmtpp.core.window import Window, cut_windows, events_that_fit
from mmtpp.data.settings import compression_of, template_of
from mmtpp.inspect.dataset import DataSet

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
STRATEGIES = ("temporal", "anchored", "relative", "hybrid")
# Without --deltas, thresholds at which temporal compression marks about these shares.
SHARES = (0.1, 0.25, 0.5, 0.75)
MAX_TOO_LONG = 10  # events that are named


@dataclass(frozen=True, slots=True)
class Choice:
    """What one way of writing the data set gives.

    Attributes:
        style, strategy, delta: of it.
        compressed: share of the events that are marked similar.
        tokens_per_event: over the whole data set, prefix included.
        events_per_context: mean over all starts from which a sequence fills the context; None
            where no sequence does.
        num_windows, num_samples: after cutting and packing.
        full: share of the samples' tokens that are used.
    """

    style: str
    strategy: str
    delta: float
    compressed: float
    tokens_per_event: float
    events_per_context: float | None
    num_windows: int
    num_samples: int
    full: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything measured; ``as_dict`` for programs.

    Quantiles are ordered as ``QUANTILES``. Intervals leave out the first event of each sequence.
    ``losses`` names sequences without their newest event, and those without any.
    ``num_too_long`` is the number of events that do not fit ``max_tokens``, and ``too_long`` names
    the longest of them: ``sequence``, ``event`` from 0 and ``tokens``.
    """

    uri: str
    kind: str
    vocabulary: str
    hints: list[str]
    seconds_per_unit: float
    max_tokens: int
    max_text_tokens: int
    num_texts_truncated: int
    num_too_long: int
    too_long: list[dict[str, object]]
    template: dict[str, object]
    num_files: int
    num_files_there: int
    num_sequences: int
    num_events: int
    num_read: int
    num_reordered: int
    num_disagreeing: int
    num_folded: int
    left_out_by_kind: dict[str, int]
    files_not_read: dict[str, int]
    rejected_by_cause: dict[str, int]
    rejected_examples: list[dict[str, object]]
    losses: list[str]
    events_per_sequence: list[float]
    interval: list[float]
    share_of_zero_intervals: float
    share_of_whole_intervals: float
    types: dict[str, int]
    text_tokens: list[float]
    share_of_empty_texts: float
    num_distinct_texts: int
    num_events_with_image: int
    num_images: int
    num_images_missing: int
    share_of_image_changes: float
    choices: list[Choice]
    styles: list[Choice]

    def as_dict(self) -> dict[str, object]:
        """The report as plain values, quantiles with their orders."""
        return {"quantiles": list(QUANTILES), **asdict(self)}


def measure(data: DataSet, config: RunConfig, *, deltas: tuple[float, ...]) -> Report:
    """Measure a data set.

    Args:
        data: of ``load``.
        config: template, window and compression settings.
        deltas: thresholds to try, in the source's unit; empty to choose them from the data.

    Raises:
        ValueError: an event does not fit the context even without its text.
    """
    limit = config.template.max_text_tokens
    truncated = sum(int((np.diff(sequence.text_offsets) > limit).sum()) for sequence in data.events)
    events = [shorten(sequence, limit or None) for sequence in data.events]
    waits = np.concatenate([sequence.intervals[1:] for sequence in events])
    lengths = np.array([len(sequence) for sequence in events])
    text_tokens = np.concatenate([np.diff(sequence.text_offsets) for sequence in events])
    frames = np.concatenate([sequence.frames for sequence in events])
    changes = np.concatenate([np.diff(sequence.frames) != 0 for sequence in events])
    types = np.bincount(np.concatenate([sequence.types for sequence in events]))
    template, max_tokens = template_of(config), config.window.max_tokens
    if data.image_px:
        template = replace(template, image_tokens=(data.image_px // 28) ** 2)
    ids = data.vocabulary.token_ids()

    def choice(style: str, compression: Compression) -> Choice:
        return _choice(
            [compress(sequence, compression) for sequence in events],
            Template(ids, replace(template, style=style)),
            compression,
            max_tokens,
        )

    num_too_long, too_long = _too_long(data.names, events, Template(ids, template), max_tokens)
    chosen = compression_of(config)
    rows = [choice(template.style, Compression("none"))]
    rows += [
        choice(template.style, replace(chosen, strategy=strategy, delta=delta))
        for strategy in STRATEGIES
        for delta in deltas or choose_deltas(events, strategy)
    ]
    return Report(
        uri=data.uri,
        kind=data.kind,
        vocabulary=data.vocabulary_name,
        hints=data.hints,
        seconds_per_unit=data.seconds_per_unit,
        max_tokens=max_tokens,
        max_text_tokens=limit,
        num_texts_truncated=truncated if limit else 0,
        num_too_long=num_too_long,
        too_long=too_long,
        template=asdict(template),
        num_files=data.num_files,
        num_files_there=data.num_files_there,
        num_sequences=len(events),
        num_events=int(lengths.sum()),
        num_read=data.num_read,
        num_reordered=data.num_reordered,
        num_disagreeing=data.num_disagreeing,
        num_folded=data.num_folded,
        left_out_by_kind=data.left_out,
        files_not_read=data.files_not_read,
        rejected_by_cause=dict(sorted(data.rejected.items())),
        rejected_examples=[asdict(example) for example in data.examples],
        losses=data.losses.sentences(),
        events_per_sequence=_quantiles(lengths),
        interval=_quantiles(waits),
        share_of_zero_intervals=_share(waits == 0),
        share_of_whole_intervals=_share(waits == np.floor(waits)),
        types={_type_name(data, code): int(count) for code, count in enumerate(types) if count},
        text_tokens=_quantiles(text_tokens),
        share_of_empty_texts=_share(text_tokens == 0),
        num_distinct_texts=len({text for texts in data.texts for text in texts}),
        num_events_with_image=int((frames != NO_FRAME).sum()),
        num_images=sum(len(set(sequence.frames.tolist()) - {NO_FRAME}) for sequence in events),
        num_images_missing=data.num_images_missing,
        share_of_image_changes=_share(changes),
        choices=rows,
        styles=[choice(style, chosen) for style in STYLES],
    )


def _too_long(
    names: list[str], events: list[Events], template: Template, max_tokens: int
) -> tuple[int, list[dict[str, object]]]:
    """The number of events that do not fit the context, and the longest of them."""
    too_long: list[tuple[int, int, str]] = []
    for name, sequence in zip(names, events, strict=True):
        tokens = template.alone(sequence)
        places = np.flatnonzero(tokens > max_tokens).tolist()
        too_long += [(int(tokens[place]), place, name) for place in places]
    longest = sorted(too_long, key=lambda event: -event[0])[:MAX_TOO_LONG]
    return len(too_long), [
        {"sequence": name, "event": place, "tokens": tokens} for tokens, place, name in longest
    ]


def choose_deltas(events: list[Events], strategy: str) -> tuple[float, ...]:
    """Thresholds at which the strategy's own comparison with the event before marks about
    ``SHARES`` of the events, to two digits."""
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = [
            np.log(sequence.intervals) if strategy == "relative" else sequence.intervals
            for sequence in events
        ]
        gaps = np.abs(np.concatenate([np.diff(values[1:]) for values in scale]))
    gaps = gaps[np.isfinite(gaps)]
    if not len(gaps):
        return ()
    deltas = (float(f"{np.quantile(gaps, share):.2g}") for share in SHARES)
    return tuple(sorted({delta for delta in deltas if delta > 0}))


def _choice(
    events: list[Events], template: Template, compression: Compression, max_tokens: int
) -> Choice:
    def cut(events: Events) -> list[Window]:
        return cut_windows(events, template, max_tokens=max_tokens, overlap_fraction=0.0)

    fitted = [fit_texts(sequence, cut, max_tokens=max_tokens) for sequence in events]
    lengths = [window.num_tokens for windows, _ in fitted for window in windows]
    events = [
        shorten_to_fit(sequence, longest, max_tokens=max_tokens)
        for sequence, (_, longest) in zip(events, fitted, strict=True)
    ]
    fitting = [events_that_fit(sequence, template, max_tokens=max_tokens) for sequence in events]
    counts = np.concatenate(fitting)
    samples = pack(lengths, max_tokens=max_tokens, seed=0)
    num_events = sum(len(sequence) for sequence in events)
    tokens = sum(len(template.prefix) + int(template.costs(sequence).sum()) for sequence in events)
    return Choice(
        style=template.settings.style,
        strategy=compression.strategy,
        delta=compression.delta,
        compressed=sum(int(sequence.similar.sum()) for sequence in events) / num_events,
        tokens_per_event=tokens / num_events,
        events_per_context=float(counts.mean()) if len(counts) else None,
        num_windows=len(lengths),
        num_samples=len(samples),
        full=sum(lengths) / (len(samples) * max_tokens) if samples else 0.0,
    )


def _quantiles(values: NDArray[np.number]) -> list[float]:
    if not len(values):
        return []
    return [float(value) for value in np.quantile(values, QUANTILES)]


def _share(where: NDArray[np.bool_]) -> float:
    return float(where.mean()) if len(where) else 0.0


def _type_name(data: DataSet, code: int) -> str:
    return data.type_names[code] if code < len(data.type_names) else str(code)
