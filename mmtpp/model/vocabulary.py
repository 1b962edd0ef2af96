"""The vocabulary: the backbone's own tokens, then 256 byte tokens and the markers in spare rows.

Nothing is ever resized: Qwen2.5-VL-3B has 271 rows more than its tokenizer has tokens. The added
ids are arithmetic, they are not known to the tokenizer, and the tokenizer used for text has no
added tokens at all: whatever a comment contains, ``<|im_end|>`` and ``<|byte_3|>`` included, it
becomes plain text tokens.

The tokenizer of a published MM-TPP adapter has byte, marker and type tokens of its own; they are
then used under the ids it gives them.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mmtpp.core.errors import ModelError
from mmtpp.core.tokens import TokenIds

TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "vocabulary.json"
NUM_BYTE_TOKENS = 256
MARKERS = (
    "start_of_event",
    "end_of_event",
    "time_start",
    "time_end",
    "type_start",
    "type_end",
    "text_start",
    "text_end",
    "similar_event",
    "time_prediction",
    "type_prediction",
)
# Names that differ in published tokenizers.
PUBLISHED_NAMES = {
    "time_prediction": "<time_prediction>",
    "type_prediction": "<event_type_prediction>",
}
# Some stages have no use for these; a marker that is not there takes an id after all others.
OPTIONAL_MARKERS = ("time_prediction", "type_prediction", "similar_event")
NUM_ADDED = NUM_BYTE_TOKENS + len(MARKERS)
SPARE_ROWS = 271  # of the Qwen2.5-VL-3B embedding; the 7B has 399
QWEN_SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)


class Vocabulary:
    """Text tokens, byte tokens and markers of one backbone.

    Args:
        tokenizer_json: the content of a Hugging Face ``tokenizer.json``.

    Raises:
        ModelError: not a tokenizer, or one without Qwen's vision tokens.
    """

    def __init__(self, tokenizer_json: str) -> None:
        try:
            tree: dict[str, Any] = orjson.loads(tokenizer_json)
            added = {token["content"]: int(token["id"]) for token in tree["added_tokens"]}
            bare = {**tree, "added_tokens": [], "post_processor": None}
            self._text = Tokenizer.from_buffer(
                orjson.dumps({**bare, "padding": None, "truncation": None})
            )
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"not a usable tokenizer.json: {error}") from error
        missing = [name for name in QWEN_SPECIAL_TOKENS if name not in added]
        if missing:
            raise ModelError(
                f"the tokenizer lacks {', '.join(missing)}",
                cause="only Qwen2.5-VL tokenizers are supported",
            )
        self._json = tokenizer_json
        self._special = added
        # The first id that no token of the tokenizer has.
        self.byte_base = max(max(added.values()), self._text.get_vocab_size() - 1) + 1
        self.is_published = "<|byte_0|>" in added
        self._byte_ids = self._find_bytes()
        self._markers = self._find_markers()
        self._types = self._find_types()

    @cached_property
    def hash(self) -> str:
        """Of the tokenizer, the markers and where the byte tokens begin."""
        tree = [orjson.loads(self._json), MARKERS, self.byte_base]
        return hashlib.sha256(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def _find_bytes(self) -> tuple[int, ...]:
        if not self.is_published:
            return tuple(range(self.byte_base, self.byte_base + NUM_BYTE_TOKENS))
        return tuple(self._published(f"<|byte_{value}|>") for value in range(NUM_BYTE_TOKENS))

    def _find_markers(self) -> dict[str, int]:
        if not self.is_published:
            first = self.byte_base + NUM_BYTE_TOKENS
            return {name: first + place for place, name in enumerate(MARKERS)}
        markers, free = {}, self.byte_base
        for name in MARKERS:
            published = PUBLISHED_NAMES.get(name, f"<|{name}|>")
            if name in OPTIONAL_MARKERS and published not in self._special:
                markers[name] = free
                free += 1
            else:
                markers[name] = self._published(published)
        return markers

    def _find_types(self) -> tuple[int, ...]:
        if not self.is_published:
            return self._byte_ids
        types: list[int] = []
        while (name := f"<|type_{len(types)}|>") in self._special:
            types.append(self._special[name])
        if not types:
            self._published("<|type_0|>")
        return tuple(types)

    def _published(self, name: str) -> int:
        if name not in self._special:
            raise ModelError(
                f"the tokenizer has <|byte_0|> but lacks {name}",
                cause="the published stages use different vocabularies; this one cannot write "
                "whole events",
            )
        return self._special[name]

    @property
    def num_tokens(self) -> int:
        """Rows of the embedding in use: every id is below this."""
        return max(*self.added_ids, self.byte_base - 1) + 1

    @property
    def num_text_tokens(self) -> int:
        """Texts are written in ids below this, none of them a control token."""
        return self._text.get_vocab_size()

    @property
    def added_ids(self) -> list[int]:
        """Ids of the byte tokens, the markers and the types, in order: the rows LoRA trains."""
        return sorted({*self._byte_ids, *self._markers.values(), *self._types})

    def special(self, name: str) -> int:
        """Id of one of the tokenizer's own special tokens."""
        return self._special[name]

    def marker(self, name: str) -> int:
        """Id of a marker, see ``MARKERS``."""
        return self._markers[name]

    def type_ids(self, types: Iterable[int]) -> list[int]:
        """Ids of the tokens that write these types."""
        return [self._types[code] for code in types]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts as data: no id of a special token can come out."""
        encodings = self._text.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode_text(self, ids: Sequence[int]) -> str:
        """The text of plain text ids."""
        return self._text.decode(list(ids), skip_special_tokens=False)

    def token_ids(self) -> TokenIds:
        """What a template needs."""
        blank, line_break, prefix = self.encode_texts([" ", "\n", "Event Sequence:\n"])
        system, user, assistant = self.encode_texts(
            [
                "system\nYou are a helpful assistant.",
                "user\nEvent Sequence History:\n",
                "assistant\n",
            ]
        )
        start, end = self.special("<|im_start|>"), self.special("<|im_end|>")
        return TokenIds(
            byte_ids=self._byte_ids,
            type_ids=self._types,
            vision_start=self.special("<|vision_start|>"),
            image_pad=self.special("<|image_pad|>"),
            vision_end=self.special("<|vision_end|>"),
            blank=tuple(blank),
            line_break=tuple(line_break),
            prefix=tuple(prefix),
            chat_prefix=(start, *system, end, *line_break, start, *user),
            chat_turn=(end, *line_break, start, *assistant),
            end_of_text=self.special("<|endoftext|>"),
            **self._markers,
        )

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json`` and, with the hash and the added ids, ``vocabulary.json``."""
        (folder / TOKENIZER_FILE).write_text(self._json, encoding="utf-8")
        (folder / VOCABULARY_FILE).write_text(self.describe(), encoding="utf-8")

    @property
    def tokenizer_json(self) -> str:
        """The tokenizer as it was given."""
        return self._json

    def describe(self) -> str:
        """The added ids and the hash, as JSON."""
        markers = {f"<|{name}|>": self.marker(name) for name in MARKERS}
        tree = {"hash": self.hash, "byte_base": self._byte_ids[0], "markers": markers}
        return json.dumps(tree, indent=2)


def load_vocabulary(folder: Path) -> Vocabulary:
    """The vocabulary of a model or adapter folder.

    Raises:
        ModelError: no tokenizer there, or its hash differs from the one recorded beside it.
    """
    path = folder / TOKENIZER_FILE
    if not path.exists():
        raise ModelError("the model folder has no tokenizer.json", where=str(folder))
    vocabulary = Vocabulary(path.read_text(encoding="utf-8"))
    recorded = folder / VOCABULARY_FILE
    if recorded.exists():
        check_same_vocabulary(
            vocabulary.hash, json.loads(recorded.read_text())["hash"], where=str(recorded)
        )
    return vocabulary


def check_same_vocabulary(hash_a: str, hash_b: str, *, where: str) -> None:
    """Refuse to mix vocabularies.

    Raises:
        ModelError: the hashes differ; shows both.
    """
    if hash_a != hash_b:
        raise ModelError(
            f"two vocabularies: {hash_a[:12]} and {hash_b[:12]}",
            where=where,
            cause="the event store, the base model and the adapter must share one tokenizer; "
            "prepare the store with model.path set to the base model",
        )


def train_tokenizer(texts: Iterable[str], *, size: int) -> str:
    """Train a small byte-level BPE with Qwen's special tokens, for the ``tiny`` preset.

    Args:
        texts: the corpus, in a fixed order.
        size: entries including the 256 byte symbols, without the special tokens.

    Returns:
        The content of a ``tokenizer.json``; any text round-trips.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    # words keep their leading blank; within a word everything may merge
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\S+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
        max_token_length=32,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens(list(QWEN_SPECIAL_TOKENS))
    return tokenizer.to_str()
