"""Qwen3: text only, with norms of queries and keys and a head width of its own."""

from mmtpp.model.backbones.family import Family

QWEN3 = Family(model_type="qwen3", title="Qwen3", class_name="Qwen3ForCausalLM")
