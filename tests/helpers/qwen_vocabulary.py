"""The genuine Qwen2.5 tokenizer, built from the vocabulary file that PyPI's dashscope ships.

The file has the ranks of tiktoken; a Hugging Face tokenizer wants merges. The merge that makes a
token is where byte-pair encoding of it ends when only lower ranks may be merged.
"""

import base64
import importlib.util
import json
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import pytest
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mmtpp.model.tokens.vocabulary import QWEN_SPECIAL_TOKENS, Vocabulary

TOOL_TOKENS = (
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
)
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@lru_cache(maxsize=1)
def qwen_tokenizer_json() -> str:
    """The content of ``tokenizer.json`` of Qwen2.5-VL; skips the test where it cannot be had."""
    found = importlib.util.find_spec("dashscope")  # not imported: only its file is wanted
    if found is None or not found.submodule_search_locations:
        pytest.skip("dashscope, which ships the Qwen vocabulary, is not installed")
    path = Path(found.submodule_search_locations[0]) / "resources" / "qwen.tiktoken"
    ranks = {}
    for line in path.read_bytes().splitlines():
        token, rank = line.split()
        ranks[base64.b64decode(token)] = int(rank)
    letters = _letters()
    spell = {token: "".join(letters[byte] for byte in token) for token in ranks}
    merges = []
    for token in sorted(ranks, key=ranks.__getitem__):
        if len(token) > 1:
            parts = _parts(token, ranks)
            if len(parts) == 2:
                merges.append((spell[parts[0]], spell[parts[1]]))
    tokenizer = Tokenizer(
        models.BPE(vocab={spell[token]: rank for token, rank in ranks.items()}, merges=merges)
    )
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    names = (*QWEN_SPECIAL_TOKENS, *TOOL_TOKENS)
    tokenizer.add_special_tokens([AddedToken(name, normalized=False) for name in names])
    return tokenizer.to_str()


@lru_cache(maxsize=1)
def qwen_tokenizer() -> Tokenizer:
    """The tokenizer with its special tokens, as the backbone's users have it."""
    return Tokenizer.from_str(qwen_tokenizer_json())


@lru_cache(maxsize=1)
def qwen_vocabulary() -> Vocabulary:
    """Ours over it."""
    return Vocabulary(qwen_tokenizer_json())


@lru_cache(maxsize=2)
def published_tokenizer(*more: str) -> Tokenizer:
    """The same as the stage-1 script of MM-TPP extends it: 275 tokens in its order, and more."""
    tokenizer = Tokenizer.from_str(qwen_tokenizer_json())
    names = [
        "start_of_event",
        "end_of_event",
        "time_start",
        "time_end",
        "text_start",
        "text_end",
        "type_start",
        "type_end",
    ]
    tokens = [f"<|{name}|>" for name in names] + ["<time_prediction>", "<|similar_event|>"]
    tokens += (
        [f"<|byte_{value}|>" for value in range(256)]
        + [f"<|type_{k}|>" for k in range(9)]
        + [*more]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer


def num_merges() -> int:
    """Merges of the tokenizer built."""
    return len(json.loads(qwen_tokenizer_json())["model"]["merges"])


def _letters() -> dict[int, str]:
    """The printable letter that byte-level BPE writes for each byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {byte: chr(byte) for byte in printable}
    for place, byte in enumerate(byte for byte in range(256) if byte not in letters):
        letters[byte] = chr(256 + place)
    return letters


def _parts(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """Byte-pair encoding of a token that stops short of the token itself."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while True:
        pairs = [(ranks.get(a + b), i) for i, (a, b) in enumerate(pairwise(parts))]
        merges = [(rank, i) for rank, i in pairs if rank is not None and rank < ranks[token]]
        if not merges:
            return parts
        _, i = min(merges)
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
