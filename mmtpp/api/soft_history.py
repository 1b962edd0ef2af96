"""The row of soft tokens of a sequence in memory, as the predict job builds it."""

from dataclasses import dataclass

import numpy as np

from mmtpp.config.schema import RunConfig
from mmtpp.core.events import EventSequence
from mmtpp.core.past.event_memory import MemorySettings, memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.core.representation.row import Row
from mmtpp.core.representation.soft_tokens import SoftTokens
from mmtpp.core.representation.template import Template
from mmtpp.core.representation.text_truncation import truncate_texts
from mmtpp.core.representation.window import last_window
from mmtpp.data.encode.tokenised_events import distinct_images, tokenise_sequences
from mmtpp.data.from_config import template_of
from mmtpp.data.store.images import load_image
from mmtpp.model.vocabulary import Vocabulary


@dataclass(frozen=True, slots=True)
class SoftHistory:
    """What a soft model reads of a sequence.

    Attributes:
        row: Row of the newest events, one segment without labels.
        past: All events, with codes of types.
    """

    row: Row
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
    settings = template_of(config.sample_sections, seconds_per_unit=seconds_per_unit)
    template = Template(vocabulary.token_ids(), settings)
    max_tokens = config.window.max_tokens
    start = last_window(events, template, max_tokens=max_tokens, question_tokens=0).start
    seen = events.slice(start, len(events))
    seen = truncate_texts(seen, config.template.max_text_tokens or None)
    lengths = np.diff(events.text_offsets)
    past = PastEvents.from_sequence(sequence.times, sequence.types, lengths)
    rows, _ = memory_rows(memory, past)
    tokens = template.write(seen)
    frames, image_frame = np.unique(tokens.frames, return_inverse=True)
    images, image_px = distinct_images(sequence), config.template.image_px
    pixels = [load_image(images[index], image_px=image_px) for index in frames.tolist()]
    shown = template.shows_image(seen)
    row = Row(
        sample_id=0,
        input_ids=tokens.ids,
        modality=tokens.modality,
        segment=np.zeros(len(seen), dtype=np.int32),
        event=tokens.event,
        may_be_label=np.zeros(len(seen), dtype=np.bool_),
        frames=np.array(pixels, dtype=np.uint8).reshape(-1, image_px, image_px, 3),
        image_frame=image_frame.astype(np.int32),
        event_type=seen.types,
        event_is_target=np.zeros(len(seen), dtype=np.bool_),
        soft=SoftTokens.from_events(rows[start:], seen, shown),
    )
    return SoftHistory(row, past)
