"""Qwen2 and Qwen2.5: text only."""

from mmtpp.model.backbones.family import Family

QWEN2 = Family(model_type="qwen2", title="Qwen2", class_name="Qwen2ForCausalLM")
