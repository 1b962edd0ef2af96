"""The row of the newest events of a sequence in memory, as the predict job builds it."""

import logging
from dataclasses import replace

import numpy as np

from mmtpp.api.shown_images import load_shown_images
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import DataError
from mmtpp.core.events import Events, EventSequence
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.representation.branches import branch_costs, lay_out_branches
from mmtpp.core.representation.compression import compress
from mmtpp.core.representation.older_events import OlderEvents, images_of
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.text_truncation import (
    cut_with_truncation,
    truncate_texts,
    truncate_texts_to_fit,
)
from mmtpp.core.representation.window import (
    EventTooLongError,
    Window,
    check_events,
    last_window,
    with_older_events,
)
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.from_config import build_compression
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.predict.next_event import SeenEvents

logger = logging.getLogger(__name__)


class HistoryReader:
    """Builds the rows that a language model reads.

    Args:
        config: Settings of template, compression and context.
        vocabulary: Vocabulary of the model.
        template: Template of events and questions.
        tasks: Tasks about which questions are asked: ``time``, ``type`` or both.
    """

    def __init__(
        self, config: RunConfig, vocabulary: Vocabulary, template: Template, tasks: list[str]
    ) -> None:
        self._config, self._tokenise = config, TextTokeniser(vocabulary)
        self._template, self._tasks = template, tasks
        self._older_tokens = config.compression.older_tokens(config.window.max_tokens)

    def __call__(self, sequence: EventSequence, grid: IntervalGrid) -> SeenEvents:
        """Build the row of the newest events and of the questions about the next event.

        The row equals that of the predict job.

        Args:
            sequence: Events to forecast from.
            grid: Grid of the interval forecasts.

        Raises:
            DataError: An image is invalid, or an event is larger than the context.
        """
        config, template = self._config, self._template
        [events] = tokenise_sequences([sequence], self._tokenise)
        compression = build_compression(config.sample_sections)
        events = compress(events, compression.for_sequence(sequence.sequence_id))
        window, events = self._fit(events, sequence.sequence_id)
        seen = events.slice(window.start, window.end)
        similar = seen.similar.copy()
        similar[: window.num_older] = True
        seen = replace(seen, similar=similar)
        laid = lay_out_branches(
            template, seen, [len(seen)], tasks=self._tasks, first_bytes=grid.first_bytes
        )
        older = OlderEvents.from_window(template, seen, laid.tokens) if self._older_tokens else None
        images = images_of(laid.tokens, older)
        row = PackedRow.from_window(
            laid.tokens,
            seen.types,
            load_shown_images(sequence, images, image_px=config.template.image_px),
            may_be_label=laid.is_answer,
            branches=laid.branches,
            questions=laid.questions,
            older=older,
        )
        times = sequence.times[window.start : window.end]
        return SeenEvents(sequence.sequence_id, row, len(sequence), times)

    @property
    def _share_of_older(self) -> str:
        """Names the setting that takes a part of the context, if it does."""
        if not self._older_tokens:
            return ""
        return f"compression.older_fraction = {self._config.compression.older_fraction:g}, "

    def _fit(self, events: Events, sequence_id: str) -> tuple[Window, Events]:
        """The window of the newest events that fit, and all events with truncated texts."""
        template = self._template
        max_tokens = self._config.window.max_tokens - self._older_tokens
        max_text_tokens = self._config.template.max_text_tokens

        def cut(events: Events) -> Window:
            check_events(events, template, max_tokens=max_tokens)
            costs = branch_costs(template, events, tasks=self._tasks)
            window = last_window(
                events, template, max_tokens=max_tokens, question_tokens=int(costs[-1])
            )
            return with_older_events(window, template, max_tokens=self._older_tokens)

        whole, events = events, truncate_texts(events, max_text_tokens or None)
        try:
            if self._config.window.long_events == "fail":
                window = cut(events)
            else:
                window, longest = cut_with_truncation(events, cut, max_tokens=max_tokens)
                events = truncate_texts_to_fit(events, longest, max_tokens=max_tokens)
        except EventTooLongError as error:
            raise DataError(
                str(error),
                where=sequence_id,
                cause="a single event does not fit the context",
                setting=f"window.max_tokens = {self._config.window.max_tokens}, "
                f"{self._share_of_older}template.max_text_tokens, "
                f"window.long_events = {self._config.window.long_events}",
            ) from error
        is_truncated = np.diff(whole.text_offsets) > np.diff(events.text_offsets)
        first_full = window.start + window.num_older
        if num_truncated := int(is_truncated[first_full : window.end].sum()):
            logger.warning(
                "%s: %d texts were truncated (window.max_tokens = %d, %s"
                "template.max_text_tokens = %d)",
                sequence_id,
                num_truncated,
                self._config.window.max_tokens,
                self._share_of_older,
                max_text_tokens,
            )
        return window, events
