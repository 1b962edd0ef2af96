"""The row of soft tokens of a sequence in memory, as the predict job builds it."""

from dataclasses import dataclass

import numpy as np

from mmtpp.api.shown_images import load_shown_images
from mmtpp.config.schema import RunConfig
from mmtpp.core.events import EventSequence
from mmtpp.core.past.event_memory import MemorySettings, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.soft_tokens import SoftTokens
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.text_truncation import truncate_texts
from mmtpp.core.representation.window import last_window
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.from_config import build_template_settings
from mmtpp.model.tokens.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class SoftHistory:
    """What a soft model reads of a sequence.

    Attributes:
        row: Row of the newest events, one segment without labels.
        past: All events, with codes of types.
    """

    row: PackedRow
    past: PastEvents


def read_soft_history(
    sequence: EventSequence,
    config: RunConfig,
    vocabulary: Vocabulary,
    memory: MemorySettings,
    *,
    seconds_per_unit: float,
) -> SoftHistory:
    """Build the row of the newest events of a sequence.

    Args:
        sequence: At least one event.
        config: Settings of template and context.
        vocabulary: Vocabulary of the model.
        memory: Settings of the model's memory.
        seconds_per_unit: Seconds in one unit of the times.

    Raises:
        DataError: An image is invalid.
    """
    [events] = tokenise_sequences([sequence], vocabulary)
    settings = build_template_settings(config.sample_sections, seconds_per_unit=seconds_per_unit)
    template = Template(vocabulary.token_ids(), settings)
    max_tokens = config.window.max_tokens
    start = last_window(events, template, max_tokens=max_tokens, question_tokens=0).start
    seen = events.slice(start, len(events))
    seen = truncate_texts(seen, config.template.max_text_tokens or None)
    lengths = np.diff(events.text_offsets)
    past = PastEvents.from_sequence(sequence.times, sequence.types, lengths)
    rows, _ = memory_rows(memory, past)
    tokens = template.write(seen)
    row = PackedRow.from_window(
        tokens,
        seen.types,
        load_shown_images(sequence, tokens.frames, image_px=config.template.image_px),
        soft=SoftTokens.from_events(rows[start:], seen, template.shows_image(seen)),
    )
    return SoftHistory(row, past)
