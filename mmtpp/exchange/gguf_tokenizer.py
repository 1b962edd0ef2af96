"""Rebuilds the tokenizer of a GGUF file from its tokens and merges.

Only byte-level BPE tokenizers are supported. A GGUF file names the rule by which texts are split
before the merges, but does not contain it; ``SPLIT_RULES`` has the rules. transformers' own reader
applies one rule per architecture, which splits digits differently from SmolLM2's tokenizer.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gguf import TokenType
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from mmtpp.core.errors import ModelError

BYTE_LEVEL_BPE = "gpt2"  # value of tokenizer.ggml.model
# as in the published tokenizer.json files of Qwen2 and Llama 3; they differ in the digits of a word
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How a text is split before the merges.

    Attributes:
        words: Regular expression of a word; empty for the expression of GPT-2.
        single_digits: Whether every digit is first split from the text.
        nfc: Whether the text is first normalised to NFC.
        keeps_known_words: Whether a word that is a token is not built by merges.
    """

    words: str = ""
    single_digits: bool = False
    nfc: bool = False
    keeps_known_words: bool = False


SPLIT_RULES = {
    "gpt-2": SplitRule(),
    "smollm": SplitRule(single_digits=True),
    "qwen2": SplitRule(_WORDS.format(digits=r"\p{N}"), nfc=True),
    "llama-bpe": SplitRule(_WORDS.format(digits=r"\p{N}{1,3}"), keeps_known_words=True),
}
"""Rules by the name in ``tokenizer.ggml.pre``."""


def build_tokenizer(fields: Mapping[str, object], *, where: str) -> Tokenizer:
    """Build the tokenizer of a GGUF file.

    Args:
        fields: Metadata of the file, by key.
        where: Location of the file, for errors.

    Raises:
        ModelError: The tokenizer is of another kind, its split rule is unknown, or a field is
            missing.
    """
    rule = _split_rule(fields, where)
    tokens, kinds = _list(fields, "tokens", where), _list(fields, "token_type", where)
    merges = [tuple(merge.split(" ")) for merge in _list(fields, "merges", where)]
    # converters fill unused rows of the embedding with tokens of this kind
    vocabulary = {
        token: index
        for index, (token, kind) in enumerate(zip(tokens, kinds, strict=True))
        if kind != TokenType.UNUSED
    }
    try:
        bpe = models.BPE(vocab=vocabulary, merges=merges, ignore_merges=rule.keeps_known_words)
    except Exception as error:  # tokenizers raises bare Exception
        raise ModelError(f"the tokens and merges do not fit: {error}", where=where) from error
    tokenizer = Tokenizer(bpe)
    if rule.nfc:
        tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = _pre_tokenizer(rule)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind == TokenType.CONTROL)
            for token, kind in zip(tokens, kinds, strict=True)
            if kind in (TokenType.CONTROL, TokenType.USER_DEFINED)
        ]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, fields: Mapping[str, object], folder: Path) -> None:
    """Write the tokenizer, its configuration and the chat template of a GGUF file.

    Args:
        tokenizer: Result of ``build_tokenizer``.
        fields: Metadata of the file, by key.
        folder: Existing local folder.
    """
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        **_named_tokens(fields, tokenizer),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    template = fields.get("tokenizer.chat_template")
    if isinstance(template, str):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _split_rule(fields: Mapping[str, object], where: str) -> SplitRule:
    kind, rule = fields.get("tokenizer.ggml.model"), str(fields.get("tokenizer.ggml.pre"))
    if kind != BYTE_LEVEL_BPE:
        raise ModelError(
            f"the tokenizer is of the kind {kind}, only byte-level BPE ({BYTE_LEVEL_BPE}) can be "
            "rebuilt",
            where=where,
            cause="the model has a SentencePiece or WordPiece tokenizer; use its Hugging Face "
            "folder",
        )
    if rule not in SPLIT_RULES:
        raise ModelError(
            f"the tokenizer splits texts by the rule {rule}, which is unknown here; known are "
            f"{', '.join(SPLIT_RULES)}",
            where=where,
            cause="another rule would give other tokens than the model was trained with; use its "
            "Hugging Face folder",
        )
    return SPLIT_RULES[rule]


def _list(fields: Mapping[str, object], name: str, where: str) -> list:
    values = fields.get(f"tokenizer.ggml.{name}")
    if not isinstance(values, list):
        raise ModelError(f"the file has no tokenizer.ggml.{name}", where=where)
    return values


def _pre_tokenizer(rule: SplitRule) -> pre_tokenizers.PreTokenizer:
    parts: list[pre_tokenizers.PreTokenizer] = []
    if rule.single_digits:
        parts.append(pre_tokenizers.Digits(individual_digits=True))
    if rule.words:
        parts.append(pre_tokenizers.Split(Regex(rule.words), "isolated"))
    parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not rule.words))
    return pre_tokenizers.Sequence(parts)


def _named_tokens(fields: Mapping[str, object], tokenizer: Tokenizer) -> dict[str, str | None]:
    """Beginning, end, unknown and padding token, where the file has them."""
    names = {
        "bos_token": "bos_token_id",
        "eos_token": "eos_token_id",
        "unk_token": "unknown_token_id",
        "pad_token": "padding_token_id",
    }
    ids = {name: fields.get(f"tokenizer.ggml.{key}") for name, key in names.items()}
    return {
        name: tokenizer.id_to_token(index) for name, index in ids.items() if isinstance(index, int)
    }
