"""The vocabulary: the backbone's tokens, followed by 256 byte tokens and the markers.

The byte tokens and markers use spare rows of the embedding, which is never resized: Qwen2.5-VL-3B
has 271 rows more than its tokenizer has tokens. A base with fewer spare rows gets rows of its own
for them (``own_rows``). The tokenizer does not know the added ids; they are computed. The tokenizer
that encodes texts has no added tokens at all, so any text becomes plain text tokens, even if it
contains ``<|im_end|>`` or ``<|byte_3|>``.

The tokenizer of a published MM-TPP adapter has its own byte, marker and type tokens. With such a
tokenizer these tokens and their ids are used.

A template also needs tokens of images and of roles in a chat. Those that a tokenizer lacks are
added after the markers.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import orjson
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mmtpp.core.errors import ModelError
from mmtpp.core.representation.tokens import TokenIds
from mmtpp.core.times.calendar import WEEKDAYS
from mmtpp.model.tokens.chat import ChatFormat, chat_format
from mmtpp.model.tokens.unwritable_characters import CharacterFilter, find_unwritable_bytes

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
# names of the published tokenizers that differ from the markers' names
PUBLISHED_NAMES = {
    "time_prediction": "<time_prediction>",
    "type_prediction": "<event_type_prediction>",
}
# markers that some published tokenizers lack; a missing marker gets an id after all other ids
OPTIONAL_MARKERS = ("time_prediction", "type_prediction", "similar_event")
NUM_ADDED = NUM_BYTE_TOKENS + len(MARKERS)
SPARE_ROWS = 271  # spare rows in the embedding of Qwen2.5-VL-3B; the 7B has 399
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
IMAGE_TOKENS = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")


class Vocabulary:
    """Text tokens, byte tokens and markers of one backbone.

    Args:
        tokenizer_json: Content of a Hugging Face ``tokenizer.json``.

    Raises:
        ModelError: The content is not a tokenizer.
    """

    def __init__(self, tokenizer_json: str) -> None:
        try:
            tree: dict[str, Any] = orjson.loads(tokenizer_json)
            added = {token["content"]: int(token["id"]) for token in tree["added_tokens"]}
            removed = {"post_processor": None, "padding": None, "truncation": None}
            self._text = Tokenizer.from_buffer(
                orjson.dumps({**tree, "added_tokens": [], **removed})
            )
        except Exception as error:  # tokenizers raises bare Exception
            raise ModelError(f"not a usable tokenizer.json: {error}") from error
        self._filter = CharacterFilter(find_unwritable_bytes(tree))
        self._json = tokenizer_json
        self._special = added
        # first id after the tokenizer's tokens
        self.byte_base = max(*added.values(), self._text.get_vocab_size() - 1, -1) + 1
        self.is_published = "<|byte_0|>" in added
        self._chat = chat_format(added)
        self._byte_ids = self._find_bytes()
        self._markers = self._find_markers()
        self._types = self._find_types()
        self._lacking = self._add_lacking()

    @cached_property
    def hash(self) -> str:
        """Hash of the tokenizer, the markers and the first id after the tokenizer's tokens."""
        tree = [orjson.loads(self._json), MARKERS, self.byte_base]
        return hashlib.sha256(orjson.dumps(tree, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def _find_bytes(self) -> tuple[int, ...]:
        if not self.is_published:
            return tuple(range(self.byte_base, self.byte_base + NUM_BYTE_TOKENS))
        return tuple(self._published_id(f"<|byte_{value}|>") for value in range(NUM_BYTE_TOKENS))

    def _find_markers(self) -> dict[str, int]:
        if not self.is_published:
            first = self.byte_base + NUM_BYTE_TOKENS
            return {name: first + index for index, name in enumerate(MARKERS)}
        markers, free_id = {}, self.byte_base
        for name in MARKERS:
            published = PUBLISHED_NAMES.get(name, f"<|{name}|>")
            if name in OPTIONAL_MARKERS and published not in self._special:
                markers[name] = free_id
                free_id += 1
            else:
                markers[name] = self._published_id(published)
        return markers

    def _find_types(self) -> tuple[int, ...]:
        if not self.is_published:
            return self._byte_ids
        types: list[int] = []
        while (name := f"<|type_{len(types)}|>") in self._special:
            types.append(self._special[name])
        if not types:
            self._published_id("<|type_0|>")  # raises the error
        return tuple(types)

    def _add_lacking(self) -> dict[str, int]:
        """Ids of tokens that a template needs and the tokenizer lacks, after all other ids."""
        needed = (*self._chat.tokens, *IMAGE_TOKENS)
        names = [name for name in needed if name not in self._special]
        ids = (*self._byte_ids, *self._markers.values(), *self._types)
        first = max(*ids, self.byte_base - 1) + 1
        return {name: first + index for index, name in enumerate(names)}

    def _published_id(self, name: str) -> int:
        """Id of a token of a published tokenizer."""
        if name not in self._special:
            raise ModelError(
                f"the tokenizer has <|byte_0|> but lacks {name}",
                cause="the published stages use different vocabularies; this vocabulary cannot "
                "write whole events",
            )
        return self._special[name]

    @property
    def num_tokens(self) -> int:
        """Number of embedding rows in use; all ids are smaller."""
        return max(*self.added_ids, self.byte_base - 1) + 1

    @property
    def num_text_tokens(self) -> int:
        """Number of plain text tokens; all ids of a text are smaller than this number."""
        return self._text.get_vocab_size()

    @property
    def added_ids(self) -> list[int]:
        """Sorted ids of byte tokens, markers, types and of tokens that the tokenizer lacks. Their
        rows are trained with LoRA."""
        lacking = self._lacking.values()
        return sorted({*self._byte_ids, *self._markers.values(), *self._types, *lacking})

    @property
    def control_ids(self) -> list[int]:
        """Ids below ``num_text_tokens`` that no text is tokenised to: special tokens."""
        return [token for token in self._special.values() if token < self.num_text_tokens]

    def special(self, name: str) -> int:
        """Id of a special token of the tokenizer, or of an image or role token that it lacks."""
        return self._special[name] if name in self._special else self._lacking[name]

    def has_special(self, name: str) -> bool:
        """Whether ``special`` knows a token."""
        return name in self._special or name in self._lacking

    @property
    def end_of_turn(self) -> int:
        """Id of the token after a turn of a chat."""
        return self.special(self._chat.close)

    def marker(self, name: str) -> int:
        """Id of a marker, see ``MARKERS``."""
        return self._markers[name]

    def type_ids(self, types: Iterable[int]) -> list[int]:
        """Ids of the tokens that stand for these type codes."""
        return [self._types[code] for code in types]

    def encode_texts(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenise texts as data; the result never contains a special token.

        A character that the tokenizer cannot write becomes U+FFFD, see ``num_unwritable``.
        """
        written = [self._filter(text) for text in texts]
        encodings = self._text.encode_batch_fast(written, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    @property
    def writes_all_characters(self) -> bool:
        """Whether the tokenizer can write every character."""
        return self._filter.keeps_all

    def num_unwritable(self, text: str) -> int:
        """Number of characters of a text that the tokenizer cannot write."""
        return self._filter.count(text)

    def decode_text(self, ids: Sequence[int]) -> str:
        """Decode plain text ids."""
        return self._text.decode(list(ids), skip_special_tokens=False)

    def token_ids(self) -> TokenIds:
        """Token ids that a template needs."""
        blank, line_break, prefix = self.encode_texts([" ", "\n", "Event Sequence:\n"])
        chat_prefix, chat_turn = self._chat_turns(self._chat)
        return TokenIds(
            byte_ids=self._byte_ids,
            type_ids=self._types,
            vision_start=self.special("<|vision_start|>"),
            image_pad=self.special("<|image_pad|>"),
            vision_end=self.special("<|vision_end|>"),
            blank=tuple(blank),
            line_break=tuple(line_break),
            prefix=tuple(prefix),
            chat_prefix=chat_prefix,
            chat_turn=chat_turn,
            end_of_text=self.special(self._chat.end_of_text),
            weekdays=self._encode_to_one_length(WEEKDAYS),
            digits=self._encode_to_one_length(tuple("0123456789")),
            colon=self._encode_to_one_length((":",))[0],
            **self._markers,
        )

    def _chat_turns(self, chat: ChatFormat) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Tokens up to the history in the user's turn, and tokens up to the assistant's answer."""

        def ids(*parts: str) -> list[int]:
            """Ids of special tokens, and of plain texts, which join the texts next to them."""
            joined: list[str] = []
            for part in parts:
                if part in chat.tokens or not joined or joined[-1] in chat.tokens:
                    joined.append(part)
                else:
                    joined[-1] += part
            return [
                token
                for part in joined
                for token in (
                    [self.special(part)] if part in chat.tokens else self.encode_texts([part])[0]
                )
            ]

        def turn(role: str, content: str) -> tuple[str, ...]:
            return (chat.open, role, chat.after_role, chat.separator, content)

        close = (chat.close, chat.after_close)
        system = turn("system", "You are a helpful assistant.")
        user = turn("user", "Event Sequence History:\n")
        prefix = ids(chat.first, *system, *close, *user)
        return tuple(prefix), tuple(ids(*close, *turn("assistant", "")))

    def _encode_to_one_length(self, texts: Sequence[str]) -> tuple[tuple[int, ...], ...]:
        """Ids of texts of one length; character by character where whole texts would differ in
        their number of tokens."""
        whole = self.encode_texts(texts)
        if len(set(map(len, whole))) > 1:
            whole = [list(chain.from_iterable(self.encode_texts(list(text)))) for text in texts]
        return tuple(map(tuple, whole))

    def save(self, folder: Path) -> None:
        """Write ``tokenizer.json``, and ``vocabulary.json`` with the hash and the added ids."""
        (folder / TOKENIZER_FILE).write_text(self._json, encoding="utf-8")
        (folder / VOCABULARY_FILE).write_text(self.describe(), encoding="utf-8")

    @property
    def tokenizer_json(self) -> str:
        """Content of ``tokenizer.json``, unchanged."""
        return self._json

    def describe(self) -> str:
        """Content of ``vocabulary.json``: the hash and the added ids."""
        markers = {f"<|{name}|>": self.marker(name) for name in MARKERS}
        tree: dict[str, Any] = {
            "hash": self.hash,
            "byte_base": self._byte_ids[0],
            "markers": markers,
        }
        if self._lacking:
            tree["special_tokens"] = self._lacking
        return json.dumps(tree, indent=2)


def load_vocabulary(folder: Path) -> Vocabulary:
    """Load the vocabulary of a local model or adapter folder.

    Raises:
        ModelError: The folder has no tokenizer, or the tokenizer's hash differs from the hash in
            ``vocabulary.json``.
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
    """Check that two vocabularies are equal.

    Args:
        hash_a: Hash of the first vocabulary.
        hash_b: Hash of the second vocabulary.
        where: Location of the model or store, for the error.

    Raises:
        ModelError: The hashes differ.
    """
    if hash_a != hash_b:
        raise ModelError(
            f"two vocabularies: {hash_a[:12]} and {hash_b[:12]}",
            where=where,
            cause="the event store, the base model and the adapter must share one tokenizer; "
            "prepare the store with model.path set to the base model",
        )


def train_tokenizer(texts: Iterable[str], *, size: int) -> str:
    """Train a small byte-level BPE tokenizer with Qwen's special tokens, for the ``tiny`` preset.

    Args:
        texts: Training texts, in a fixed order.
        size: Number of tokens with the 256 byte symbols, without the special tokens.

    Returns:
        Content of a ``tokenizer.json``. Decoding an encoded text gives the same text.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    # a word includes its leading blank; tokens merge only within a word
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
