"""Counts of texts and questions that do not fit the context."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from mmtpp.core.events import Events
from mmtpp.data.samples.fitted_windows import FittedWindow

MAX_EXAMPLES = 5


@dataclass(frozen=True, slots=True)
class LongTexts:
    """Texts that samples truncate, and questions that they leave out.

    Attributes:
        truncated: Number of events whose text is longer than ``template.max_text_tokens``.
        cut_to_fit: Number of events whose text was cut because an event of the sequence did not
            fit the context.
        left_out: Number of questions in words that are not asked, because question and answer do
            not fit the context.
        examples: Sentences that name the first ``MAX_EXAMPLES`` of the last two kinds.
    """

    truncated: int = 0
    cut_to_fit: int = 0
    left_out: int = 0
    examples: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.truncated or self.cut_to_fit or self.left_out)

    def counts(self) -> dict[str, int]:
        """Counts by name, for the result of a job."""
        return {
            "texts_truncated": self.truncated,
            "texts_cut_to_fit": self.cut_to_fit,
            "questions_left_out": self.left_out,
        }

    def metrics(self, prefix: str = "") -> dict[str, float]:
        """Counts as metrics of a run.

        Args:
            prefix: Start of each name, after ``data/``.
        """
        return {f"data/{prefix}{name}": float(count) for name, count in self.counts().items()}

    def describe(self, *, max_tokens: int, max_text_tokens: int) -> str:
        """One clause per kind, with the settings that decide."""
        parts: list[str] = []
        if self.truncated:
            parts.append(
                f"texts truncated to template.max_text_tokens = {max_text_tokens}: "
                f"{self.truncated:,}"
            )
        if self.cut_to_fit:
            parts.append(
                f"texts cut, because events did not fit window.max_tokens = {max_tokens}: "
                f"{self.cut_to_fit:,}; raise window.max_tokens, set template.max_text_tokens, or "
                "stop instead with window.long_events = fail"
            )
        if self.left_out:
            parts.append(
                "questions in words left out, because with their answers they do not fit "
                f"window.max_tokens = {max_tokens}: {self.left_out:,}"
            )
        examples = f" ({'; '.join(self.examples)})" if self.examples else ""
        return "; ".join(parts) + examples

    def as_json(self) -> str:
        """JSON text, which ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "LongTexts":
        """Read the text of ``as_json``."""
        tree = json.loads(text)
        return cls(**{**tree, "examples": tuple(tree["examples"])})

    @classmethod
    def sum(cls, parts: Iterable["LongTexts"]) -> "LongTexts":
        """The sum of counts, with the first examples."""
        truncated = cut_to_fit = left_out = 0
        examples: list[str] = []
        for part in parts:
            truncated += part.truncated
            cut_to_fit += part.cut_to_fit
            left_out += part.left_out
            examples += part.examples[: MAX_EXAMPLES - len(examples)]
        return cls(truncated, cut_to_fit, left_out, tuple(examples))


def find_long_texts(
    events: Events,
    windows: list[FittedWindow],
    *,
    sequence_id: str,
    first: int,
    max_text_tokens: int,
) -> LongTexts:
    """Count the texts of one sequence that its windows shorten.

    Args:
        events: Events of the sequence with whole texts.
        windows: Windows of these events.
        sequence_id: Id of the sequence.
        first: Position of the first of ``events`` in the sequence.
        max_text_tokens: ``template.max_text_tokens``; 0 is no limit.
    """
    if not max_text_tokens and all(window.longest_text is None for window in windows):
        return LongTexts()  # nearly every sequence
    lengths = np.diff(events.text_offsets)
    allowed = np.minimum(lengths, max_text_tokens) if max_text_tokens else lengths
    seen, cut = (np.zeros(len(lengths), dtype=np.bool_) for _ in range(2))
    for window in windows:
        # only the ends of an older event's text are read anyway
        part = slice(window.window.start + window.window.num_older, window.window.end)
        seen[part] = True
        if window.longest_text is not None:
            cut[part] |= allowed[part] > window.longest_text
    truncated = seen & (lengths > allowed)
    return LongTexts(
        truncated=int(truncated.sum()),
        cut_to_fit=int(cut.sum()),
        examples=tuple(
            f"sequence {sequence_id!r}, event {first + index + 1}: a text of {lengths[index]:,} "
            "tokens"
            for index in np.flatnonzero(cut)[:MAX_EXAMPLES].tolist()
        ),
    )
