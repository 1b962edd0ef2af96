"""The published method to build training samples: one process, one tokenizer call per event.

It follows the published stage-1 script, without its bugs. Once per data set it writes every event
as a string, counts its tokens with the tokenizer and checks that its image exists. In every epoch
it tokenises the text of every sample again, and opens, decodes and resizes the image of every
event again.
"""

import io
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from PIL import Image
from transformers import PreTrainedTokenizerFast

from tests.helpers.qwen_vocabulary import published_tokenizer

PREFIX, SIMILAR = "Event Sequence:\n", "<|similar_event|>\n"


@dataclass
class Sample:
    """Texts and image paths of one context."""

    text: list[str] = field(default_factory=lambda: [PREFIX])
    images: list[str] = field(default_factory=list)


class PublishedPipeline:
    """Builds samples from files in the published JSON format.

    Args:
        read: Returns the content of a file by its path.
        exists: Returns whether a file exists.
        max_tokens: Size of a context, in tokens.
        image_tokens: Number of tokens of an image.
        image_px: Side of a resized image, in pixels.
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
        """Cut a file into contexts; done once per data set."""
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
        """Tokenise texts and decode images, once per epoch; returns the number of text tokens."""
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
