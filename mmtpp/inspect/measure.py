"""Figures of a data set, and its size under each compression and template style."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.config.schema import SampleSections
from mmtpp.core.events import NO_FRAME, Events, Rejected
from mmtpp.core.representation.compression import RECENT_FULL, Compression, compress
from mmtpp.core.representation.packing import pack
from mmtpp.core.representation.template import STYLES, Template, TemplateSettings
from mmtpp.core.representation.text_truncation import (
    cut_with_truncation,
    truncate_texts,
    truncate_texts_to_fit,
)
from mmtpp.core.representation.window import (
    Window,
    cut_windows,
    events_that_fit,
    with_older_events,
)
from mmtpp.data.from_config import (
    build_compression,
    build_template_settings,
    check_calendar,
    count_image_tokens,
    write_type_names,
)
from mmtpp.inspect.dataset import DataSet

QUANTILES = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
STRATEGIES = ("temporal", "anchored", "relative", "hybrid")
# Default deltas are chosen so that temporal compression marks about these shares of the events.
SHARES = (0.1, 0.25, 0.5, 0.75)
MAX_TOO_LONG = 10  # number of events listed in ``Report.too_long``


@dataclass(frozen=True, slots=True)
class Representation:
    """A template style with a compression, and the size of the data set written in it.

    Attributes:
        style: Template style, ``template.style``.
        strategy: Compression strategy, ``compression.strategy``.
        delta: Compression threshold in the source's time unit, ``compression.delta``.
        compressed: Share of the events that are marked similar.
        tokens_per_event: Mean number of tokens per event over the data set, with the prefixes.
        events_per_context: Mean number of events in a context, over all start positions from which
            a sequence fills the context; None if no sequence fills it.
        num_windows: Number of windows that the sequences are cut into.
        num_samples: Number of packed samples.
        full: Share of the samples' tokens that are used.
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
class LongEvent:
    """An event that does not fit the context.

    Attributes:
        sequence: Id of the sequence.
        event: Index of the event in its sequence, from 0.
        tokens: Number of tokens of the event.
    """

    sequence: str
    event: int
    tokens: int


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of a data set. ``as_dict`` is its JSON form.

    Quantiles are in the order of ``QUANTILES``. Intervals exclude the first event of a sequence.
    ``losses`` are sentences about sequences that lost their newest event or all events.
    ``num_too_long`` is the number of events that do not fit into ``max_tokens``. ``too_long`` lists
    the longest of these events.
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
    too_long: list[LongEvent]
    template: dict[str, object]
    num_files: int
    num_files_in_source: int
    num_sequences: int
    num_events: int
    split_by: str
    sequences_by_split: dict[str, int]
    events_by_split: dict[str, int]
    num_read: int
    num_reordered: int
    num_disagreeing: int
    num_folded: int
    left_out_by_kind: dict[str, int]
    files_read: dict[str, int]
    files_not_read: dict[str, int]
    folder_columns: dict[str, int]
    rejected_by_cause: dict[str, int]
    rejected_examples: list[Rejected]
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
    choices: list[Representation]
    styles: list[Representation]

    def as_dict(self) -> dict[str, object]:
        """The report as plain values for JSON, with the orders of its quantiles."""
        return {"quantiles": list(QUANTILES), **asdict(self)}


def measure(data: DataSet, sections: SampleSections, *, deltas: tuple[float, ...]) -> Report:
    """Measure a data set.

    Args:
        data: Data set in memory, from ``load``.
        sections: Template, context and compression to measure.
        deltas: Compression thresholds to compare, in the source's time unit. If empty, they are
            chosen from the data.

    Raises:
        ValueError: An event does not fit the context even without its text.
        ConfigError: The template has a calendar, but the times are numbers; or it writes the names
            of types, and they have none.
    """
    max_text_tokens = sections.template.max_text_tokens
    events = [truncate_texts(sequence, max_text_tokens or None) for sequence in data.events]
    check_calendar(sections.template, times_are_dates=data.times_are_dates, where=data.uri)
    words: tuple[tuple[int, ...], ...] = ()
    if sections.template.types == "words":
        words = write_type_names(data.type_names, data.vocabulary, where=data.uri)
    template = build_template_settings(
        sections, seconds_per_unit=data.seconds_per_unit, type_words=words
    )
    if data.image_px:
        template = replace(template, image_tokens=count_image_tokens(data.image_px))
    max_tokens = sections.window.max_tokens
    older_tokens = sections.compression.older_tokens(max_tokens)
    comparison = _Comparison(data, events, template, max_tokens, older_tokens)
    return _report(comparison, build_compression(sections), deltas, max_text_tokens)


def _report(
    comparison: "_Comparison",
    compression: Compression,
    deltas: tuple[float, ...],
    max_text_tokens: int,
) -> Report:
    data, events = comparison.data, comparison.events
    waits = np.concatenate([sequence.intervals[1:] for sequence in events])
    lengths = np.array([len(sequence) for sequence in events])
    text_tokens = np.concatenate([np.diff(sequence.text_offsets) for sequence in events])
    frames = np.concatenate([sequence.frames for sequence in events])
    num_too_long, too_long = comparison.too_long()
    return Report(
        uri=data.uri,
        kind=data.kind,
        vocabulary=data.vocabulary_name,
        hints=data.hints,
        seconds_per_unit=data.seconds_per_unit,
        max_tokens=comparison.max_tokens,
        max_text_tokens=max_text_tokens,
        num_texts_truncated=_num_truncated(data.events, max_text_tokens),
        num_too_long=num_too_long,
        too_long=too_long,
        template=asdict(comparison.template),
        num_files=data.num_files,
        num_files_in_source=data.num_files_in_source,
        num_sequences=len(events),
        num_events=int(lengths.sum()),
        split_by=data.splits.by,
        sequences_by_split=dict(data.splits.sequences),
        events_by_split=dict(data.splits.events),
        num_read=data.num_read,
        num_reordered=data.num_reordered,
        num_disagreeing=data.num_disagreeing,
        num_folded=data.num_folded,
        left_out_by_kind=data.left_out,
        files_read=data.files_read,
        files_not_read=data.files_not_read,
        folder_columns=data.folder_columns,
        rejected_by_cause=dict(sorted(data.rejected.items())),
        rejected_examples=data.examples,
        losses=data.losses.sentences(),
        events_per_sequence=_quantiles(lengths),
        interval=_quantiles(waits),
        share_of_zero_intervals=_share(waits == 0),
        share_of_whole_intervals=_share(waits == np.floor(waits)),
        types=_count_types(data, events),
        text_tokens=_quantiles(text_tokens),
        share_of_empty_texts=_share(text_tokens == 0),
        num_distinct_texts=len({text for texts in data.texts for text in texts}),
        num_events_with_image=int((frames != NO_FRAME).sum()),
        num_images=sum(len(set(sequence.frames.tolist()) - {NO_FRAME}) for sequence in events),
        num_images_missing=data.num_images_missing,
        share_of_image_changes=_share(_frame_changes(events)),
        choices=comparison.compressions(compression, deltas),
        styles=comparison.styles(compression),
    )


def _count_types(data: DataSet, events: list[Events]) -> dict[str, int]:
    """Number of events of each type that occurs, by the name of the type."""
    counts = np.bincount(np.concatenate([sequence.types for sequence in events]))
    names = data.type_names
    return {
        names[code] if code < len(names) else str(code): int(count)
        for code, count in enumerate(counts)
        if count
    }


def _frame_changes(events: list[Events]) -> NDArray[np.bool_]:
    """True for events that show another image than the event before in their sequence."""
    return np.concatenate([np.diff(sequence.frames) != 0 for sequence in events])


def _num_truncated(events: list[Events], max_text_tokens: int) -> int:
    """Number of texts that are longer than the limit; 0 without a limit."""
    if not max_text_tokens:
        return 0
    return sum(int((np.diff(sequence.text_offsets) > max_text_tokens).sum()) for sequence in events)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Sizes of one data set in several representations.

    Attributes:
        data: The data set.
        events: Events of each sequence, with truncated texts.
        template: Template settings; ``styles`` changes the style.
        max_tokens: Size of the context.
        older_tokens: Part of the context for older events, where the settings have them.
    """

    data: DataSet
    events: list[Events]
    template: TemplateSettings
    max_tokens: int
    older_tokens: int

    def compressions(self, base: Compression, deltas: tuple[float, ...]) -> list[Representation]:
        """Sizes without compression and with each strategy and threshold.

        Args:
            base: Compression whose strategy and delta are replaced.
            deltas: Thresholds; if empty, they are chosen from the data for each strategy.
        """
        variants = [
            replace(base, strategy=strategy, delta=delta)
            for strategy in STRATEGIES
            for delta in deltas or choose_deltas(self.events, strategy)
        ]
        style = self.template.style
        return [self._size(style, variant) for variant in [Compression("none"), *variants]]

    def styles(self, compression: Compression) -> list[Representation]:
        """Sizes in each template style, with one compression."""
        return [self._size(style, compression) for style in STYLES]

    def too_long(self) -> tuple[int, list[LongEvent]]:
        """The number of events that do not fit the context, and the longest of these events."""
        template = self._template(self.template.style)
        max_tokens = self.max_tokens - self.older_tokens
        too_long: list[tuple[int, int, str]] = []
        for name, sequence in zip(self.data.names, self.events, strict=True):
            tokens = template.costs_alone(sequence)
            places = np.flatnonzero(tokens > max_tokens).tolist()
            too_long += [(int(tokens[place]), place, name) for place in places]
        longest = sorted(too_long, key=lambda event: -event[0])[:MAX_TOO_LONG]
        return len(too_long), [LongEvent(name, place, tokens) for tokens, place, name in longest]

    def _template(self, style: str) -> Template:
        return Template(self.data.vocabulary.token_ids(), replace(self.template, style=style))

    def _size(self, style: str, compression: Compression) -> Representation:
        """Compress, cut and pack the data set in one representation."""
        template = self._template(style)
        older_tokens = self.older_tokens if compression.strategy == RECENT_FULL else 0
        max_tokens = self.max_tokens - older_tokens

        def cut(events: Events) -> list[Window]:
            windows = cut_windows(events, template, max_tokens=max_tokens, overlap_fraction=0.0)
            return [
                with_older_events(window, template, max_tokens=older_tokens) for window in windows
            ]

        compressed = [compress(sequence, compression) for sequence in self.events]
        fitted = [
            cut_with_truncation(sequence, cut, max_tokens=max_tokens) for sequence in compressed
        ]
        lengths = [window.num_tokens for windows, _ in fitted for window in windows]
        events = [
            truncate_texts_to_fit(sequence, longest, max_tokens=max_tokens)
            for sequence, (_, longest) in zip(compressed, fitted, strict=True)
        ]
        in_full = [
            events_that_fit(sequence, template, max_tokens=max_tokens) for sequence in events
        ]
        # the event in full at position p has at most p older events before it
        older = older_tokens // template.similar_cost
        counts = np.concatenate([some + np.arange(len(some)).clip(max=older) for some in in_full])
        samples = pack(lengths, max_tokens=self.max_tokens, seed=0)
        num_events = sum(len(sequence) for sequence in events)
        return Representation(
            style=style,
            strategy=compression.strategy,
            delta=compression.delta,
            compressed=sum(int(sequence.similar.sum()) for sequence in events) / num_events,
            tokens_per_event=_num_tokens(events, template) / num_events,
            events_per_context=float(counts.mean()) if len(counts) else None,
            num_windows=len(lengths),
            num_samples=len(samples),
            full=sum(lengths) / (len(samples) * self.max_tokens) if samples else 0.0,
        )


def choose_deltas(events: Sequence[Events], strategy: str) -> tuple[float, ...]:
    """Choose thresholds at which a strategy marks about ``SHARES`` of the events.

    Thresholds are quantiles of the difference between an event's interval and the one before, in
    the scale of the strategy, rounded to two digits.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = [
            np.log(sequence.intervals) if strategy == "relative" else sequence.intervals
            for sequence in events
        ]
        gaps = np.abs(np.concatenate([np.diff(intervals[1:]) for intervals in scaled]))
    gaps = gaps[np.isfinite(gaps)]
    if not len(gaps):
        return ()
    deltas = (float(f"{np.quantile(gaps, share):.2g}") for share in SHARES)
    return tuple(sorted({delta for delta in deltas if delta > 0}))


def _num_tokens(events: list[Events], template: Template) -> int:
    return sum(len(template.prefix) + int(template.costs(sequence).sum()) for sequence in events)


def _quantiles(values: NDArray[np.number]) -> list[float]:
    if not len(values):
        return []
    return [float(value) for value in np.quantile(values, QUANTILES)]


def _share(where: NDArray[np.bool_]) -> float:
    return float(where.mean()) if len(where) else 0.0
