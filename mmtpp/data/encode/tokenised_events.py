"""Tokenise raw sequences in memory: the input of a template, without a store."""

import logging
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from mmtpp.core.events import NO_FRAME, Events, EventSequence, intervals_from_times
from mmtpp.data.encode.text_tokeniser import TextTokeniser
from mmtpp.model.tokens.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


def tokenise_sequences(
    sequences: Sequence[EventSequence], vocabulary: Vocabulary | TextTokeniser | None
) -> list[Events]:
    """Tokenise sequences without compression. Frames are numbered by image within a sequence.

    Args:
        sequences: Raw sequences.
        vocabulary: Vocabulary of the texts, or a tokeniser that has seen some of them before; None
            leaves all texts empty.
    """
    tokenise = TextTokeniser(vocabulary) if isinstance(vocabulary, Vocabulary) else vocabulary
    num_before = tokenise.num_replaced if tokenise is not None else 0
    events = []
    for sequence in sequences:
        text_ids, lengths = np.zeros(0, dtype=np.int32), np.zeros(len(sequence), dtype=np.int32)
        if tokenise is not None and any(sequence.texts):
            text_ids, lengths = tokenise(pa.array(sequence.texts, pa.string()))
        frame_of_image: dict[str, int] = {}
        frames = [
            frame_of_image.setdefault(image, len(frame_of_image)) if image else NO_FRAME
            for image in sequence.images
        ]
        events.append(
            Events(
                intervals=intervals_from_times(sequence.times),
                types=sequence.types,
                text_ids=text_ids,
                text_offsets=np.append(0, np.cumsum(lengths, dtype=np.int64)),
                frames=np.array(frames, dtype=np.int32),
                similar=np.zeros(len(sequence), dtype=np.bool_),
                times=sequence.times,
            )
        )
    if tokenise is not None and (num_replaced := tokenise.num_replaced - num_before):
        logger.warning(
            "%s characters of the texts have no token in the model's vocabulary and were replaced "
            "by U+FFFD",
            f"{num_replaced:,}",
        )
    return events


def distinct_images(sequence: EventSequence) -> list[str]:
    """Images of a sequence in the order of the frame numbers of ``tokenise_sequences``."""
    return list(dict.fromkeys(image for image in sequence.images if image))
