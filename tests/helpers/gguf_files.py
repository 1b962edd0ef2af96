"""Small GGUF files for tests."""

import json
from collections.abc import Sequence
from pathlib import Path

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from mmtpp.exchange.gguf_tokenizer import build_tokenizer, save_tokenizer
from mmtpp.model.tokens.unwritable_characters import byte_letters

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = ["R o"]
TOKENS = [*SPECIAL, *byte_letters().values(), "Ro", "[PAD260]"]
TEMPLATE = "{{ messages[0]['content'] }}"
_KINDS = [
    *[gguf.TokenType.CONTROL] * len(SPECIAL),
    *[gguf.TokenType.NORMAL] * 257,
    gguf.TokenType.UNUSED,
]
_NAMES = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "q_proj": "attn_q",
    "k_proj": "attn_k",
    "v_proj": "attn_v",
    "o_proj": "attn_output",
    "gate_proj": "ffn_gate",
    "up_proj": "ffn_up",
    "down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def tiny_llama() -> LlamaForCausalLM:
    """A Llama with random weights, 2 layers, 4 heads and 2 key-value heads."""
    config = LlamaConfig(
        vocab_size=len(TOKENS),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 1e5},
        tie_word_embeddings=True,
    )
    torch.manual_seed(0)
    return LlamaForCausalLM(config)


def _gguf_name(name: str) -> str:
    parts = name.removeprefix("model.").removesuffix(".weight").split(".")
    short = _NAMES[parts[-1]]
    return f"blk.{parts[1]}.{short}.weight" if parts[0] == "layers" else f"{short}.weight"


def _interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The rows of a query or key projection in the order of llama.cpp's rotary positions."""
    half = weight.shape[0] // heads // 2
    return weight.reshape(heads, 2, half, -1).swapaxes(1, 2).reshape(weight.shape)


def write_gguf(
    path: Path,
    *,
    split_rule: str = "smollm",
    kind: str = "gpt2",
    architecture: str = "llama",
    scaling: str = "",
    more_tensors: tuple[str, ...] = (),
) -> dict[str, torch.Tensor]:
    """Write a tiny Llama; returns its weights by name."""
    model = tiny_llama()
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_license("apache-2.0")
    writer.add_context_length(128)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(1e5)
    writer.add_vocab_size(config.vocab_size)
    if scaling:
        writer.add_string(f"{architecture}.rope.scaling.type", scaling)
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(split_rule)
    writer.add_token_list(TOKENS)
    writer.add_token_types(_KINDS)
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(SPECIAL.index("<|im_end|>"))
    writer.add_chat_template(TEMPLATE)
    weights = {name: value for name, value in model.state_dict().items() if "lm_head" not in name}
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, value in weights.items():
        short = name.split(".")[-2]
        stored = _interleaved(value, heads[short]) if short in heads else value
        writer.add_tensor(_gguf_name(name), stored.numpy())
    for name in more_tensors:
        writer.add_tensor(name, torch.ones(4).numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def write_tokens(
    folder: Path,
    split_rule: str,
    *,
    merges: Sequence[str] = MERGES,
    extra_tokens: Sequence[str] = (),
) -> Path:
    """Write the tokenizer of a file with more tokens and merges; returns the folder."""
    fields = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": split_rule,
        "tokenizer.ggml.tokens": [*TOKENS, *extra_tokens],
        "tokenizer.ggml.token_type": [*_KINDS, *[gguf.TokenType.NORMAL] * len(extra_tokens)],
        "tokenizer.ggml.merges": list(merges),
    }
    save_tokenizer(build_tokenizer(fields, where=""), fields, folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))
    return folder
