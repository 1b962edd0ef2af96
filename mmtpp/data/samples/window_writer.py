"""Windows of a plan, and the same windows as tokens."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import BranchedTokens, lay_out_branches, lay_out_questions
from mmtpp.core.representation.older_events import OlderEvents
from mmtpp.core.representation.soft_tokens import SoftTokens
from mmtpp.core.representation.text_truncation import truncate_texts, truncate_texts_to_fit
from mmtpp.core.representation.tokens import TokenIds, Tokens
from mmtpp.data.samples.past_memory import PastMemory
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.data.store.stored_sequence import Address, StoredEvents


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedWindow:
    """A row of ``plan.WINDOW_SCHEMA``.

    Attributes:
        sequence_id: Id of the sequence.
        address: Place of the sequence in the store.
        start: First event, from 0.
        end: Event after the last one.
        first_scored: First event that is scored; those before it overlap with the window before.
        similar: (E,) which events compression writes as one token.
        first_question: First question in words that is asked after the window, from 0.
        end_question: Question after the last one; 0 if none is asked.
        longest_text: Number of tokens to which longer texts are cut; None cuts no text.
    """

    sequence_id: str
    address: Address
    start: int
    end: int
    first_scored: int
    similar: NDArray[np.bool_]
    first_question: int
    end_question: int
    longest_text: int | None

    def __len__(self) -> int:
        return self.end - self.start

    @classmethod
    def from_plan(cls, row: dict) -> "PlannedWindow":
        """Read a window from a row of the plan."""
        start, end = row["start"], row["end"]
        bits = np.frombuffer(row["similar"], dtype=np.uint8)
        similar = np.unpackbits(bits, count=end - start).astype(np.bool_)
        return cls(
            sequence_id=row["sequence_id"],
            address=Address.from_window(row),
            start=start,
            end=end,
            first_scored=row["first_scored"],
            similar=similar,
            first_question=row["first_question"],
            end_question=row["end_question"],
            longest_text=row.get("longest_text"),  # plans of earlier versions have no such column
        )


@dataclass(frozen=True, slots=True)
class WrittenWindow:
    """A window as tokens.

    Attributes:
        planned: The window of the plan.
        stored: Its events as stored, with their similar marks.
        tokens: Its tokens, those of the questions included.
        branched: The tokens with the layout of the questions; None where nothing is asked.
        soft: The content of the soft tokens; None without soft tokens.
        older: The content of the older events; None where windows have none.
    """

    planned: PlannedWindow
    stored: StoredEvents
    tokens: Tokens
    branched: BranchedTokens | None
    soft: SoftTokens | None = None
    older: OlderEvents | None = None


class WindowWriter:
    """Reads the events of windows and writes them as tokens.

    Args:
        settings: The settings of the plan.
        reader: Reader of the store.
        token_ids: Token ids of the vocabulary.
    """

    def __init__(self, settings: SampleSettings, reader: StoreReader, token_ids: TokenIds) -> None:
        self._settings, self._reader = settings, reader
        self._template = settings.build_template(token_ids)
        self._memory: PastMemory | None = None
        if self._template.is_soft:
            assert settings.memory is not None
            self._memory = PastMemory(settings.memory, reader)

    def __call__(self, window: PlannedWindow) -> WrittenWindow:
        """Write one window."""
        stored = self._reader.events(window.address, window.start, window.end)
        events = replace(stored.events, similar=window.similar)
        events = truncate_texts(events, self._settings.max_text_tokens or None)
        events = truncate_texts_to_fit(
            events, window.longest_text, max_tokens=self._settings.full_tokens
        )
        stored = replace(stored, events=events)
        supervision = self._settings.supervision
        if not supervision.asks_questions:
            tokens = self._template.write(events)
            soft = self._soft_tokens(window, events)
            older = self._older_events(events, tokens)
            return WrittenWindow(window, stored, tokens, None, soft, older)
        if window.end_question:
            questions = self._reader.questions(window.address)
            questions = questions[window.first_question : window.end_question]
            pairs = [(question.question_ids, question.answer_ids) for question in questions]
            branched = lay_out_questions(self._template, events, pairs)
        else:
            first, end = window.first_scored - window.start, len(window)
            if supervision.asks_ahead:
                first, end = len(window), len(window) + 1
            branched = lay_out_branches(
                self._template,
                events,
                range(first, end),
                tasks=supervision.event_tasks,
                first_bytes=supervision.first_bytes,
            )
        older = self._older_events(events, branched.tokens)
        return WrittenWindow(window, stored, branched.tokens, branched, older=older)

    def _older_events(self, events: Events, tokens: Tokens) -> OlderEvents | None:
        """The content of the older events of a window; None where windows have none."""
        if not self._settings.older_tokens:
            return None
        return OlderEvents.from_window(self._template, events, tokens)

    def _soft_tokens(self, window: PlannedWindow, events: Events) -> SoftTokens | None:
        """The content of the soft tokens of a window; None without soft tokens."""
        if self._memory is None:
            return None
        memory = self._memory.rows(window.address, window.start, window.end)
        return SoftTokens.from_events(memory, events, self._template.shows_image(events))
