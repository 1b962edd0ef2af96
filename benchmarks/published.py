"""The published way to training samples: one process, a tokenizer call for each event.

As the stage-1 script works, without its faults: once per data set it looks at every event, writes
it as a string, counts its tokens with the tokenizer and sees whether its image is there; then, in
every epoch, it tokenises the text of every sample again and opens, decodes and resizes the image of
every event again.
"""

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image
from transformers import PreTrainedTokenizerFast

from tests.qwen_vocabulary import published_tokenizer

PREFIX, SIMILAR = "Event Sequence:\n", "<|similar_event|>\n"


@dataclass
class Sample:
    """Text and images of a context."""

    text: list[str] = field(default_factory=lambda: [PREFIX])
    images: list[str] = field(default_factory=list)


class PublishedPipeline:
    """Args:
    read: content of a file of the data set by its path.
    exists: whether there is such a file.
    max_tokens: of a context.
    image_tokens: of an image.
    image_px: side of the resized image.
    """

    def __init__(
        self,
        read: Callable[[str], bytes],
        exists: Callable[[str], bool],
        *,
        max_tokens: int,
        image_tokens: int,
        image_px: int,
    ) -> None:
        self._read, self._exists = read, exists
        self._max_tokens, self._image_tokens, self._px = max_tokens, image_tokens, image_px
        self._tokenizer = PreTrainedTokenizerFast(tokenizer_object=published_tokenizer())

    def _cost(self, text: str) -> int:
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def samples(self, path: str, delta: float) -> list[Sample]:
        """The contexts of a file; what is done once."""
        samples: list[Sample] = []
        room, previous = 0, None
        for event in json.loads(self._read(path)):
            attributes = event["TPP_attribute"]
            interval = attributes["time_since_last_event"]
            is_similar = previous is not None and abs(interval - previous) < delta
            text = SIMILAR if is_similar else _event_text(event, attributes, interval)
            cost = self._cost(text)
            image = None if is_similar else event["image_path"]
            if image and self._exists(image):
                cost += self._image_tokens - 1
            if cost > room:
                samples.append(Sample())
                room = self._max_tokens - self._cost(PREFIX)
            samples[-1].text.append(text)
            if image:
                samples[-1].images.append(image)
            room -= cost
            previous = interval
        return samples

    def epoch(self, samples: list[Sample]) -> int:
        """What is done in every epoch; tokens of text."""
        tokens = 0
        for sample in samples:
            tokens += self._cost("".join(sample.text))
            for path in sample.images:
                with Image.open(io.BytesIO(self._read(path))) as image:
                    image.convert("RGB").resize((self._px, self._px))
        return tokens


def _event_text(event: dict, attributes: dict, interval: float) -> str:
    code = "".join(f"<|byte_{byte}|>" for byte in struct.pack(">f", interval))
    image = "<|vision_start|><|image_pad|><|vision_end|> " if event["image_path"] else ""
    return (
        f"<|start_of_event|> <|time_start|>{code}<|time_end|> "
        f"<|type_start|><|type_{attributes['event_type']}|><|type_end|> "
        f"<|text_start|>{event['text']}<|text_end|> {image}<|end_of_event|>\n"
    )
