"""The events of a sequence in memory as a temporal expert reads them."""

from dataclasses import replace

import numpy as np

from mmtpp.core.events import EventSequence
from mmtpp.core.past.event_images import IMAGE_VALUES, NO_IMAGE, EventImages, shrink
from mmtpp.core.past.past_events import PastEvents
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.store.images import load_image
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.read_sequences import past_events
from mmtpp.model.tokens.vocabulary import Vocabulary


def read_past(
    sequence: EventSequence, vocabulary: Vocabulary, expert: Expert, type_codes: tuple[int, ...]
) -> PastEvents:
    """The events of a sequence as an expert reads them; of the images, those of the last
    two.

    Args:
        sequence: At least one event.
        vocabulary: Vocabulary that counts the tokens of texts.
        expert: The expert.
        type_codes: Codes of the expert's types, in order.

    Raises:
        DataError: An event has a type that the expert does not know, or an image is invalid.
    """
    [events] = tokenise_sequences([sequence], vocabulary)
    past = past_events(
        sequence.times,
        events,
        type_codes,
        expert.texts,
        where=sequence.sequence_id,
    )
    if not expert.reads_images:
        return past
    index = np.full(len(past), NO_IMAGE, dtype=np.int32)
    pixels = [np.zeros((0, IMAGE_VALUES), dtype=np.uint8)]
    for place in range(max(len(past) - 2, 0), len(past)):
        if name := sequence.images[place]:
            index[place] = len(pixels) - 1
            pixels.append(shrink(load_image(name, image_px=expert.image_px)[None]))
    images = EventImages.from_sequence(np.concatenate(pixels), index)
    return replace(past, images=images)
