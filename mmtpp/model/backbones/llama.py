"""Llama: text only. SmolLM2, TinyLlama and Llama 3 are of this family."""

from mmtpp.model.backbones.family import Family

LLAMA = Family(model_type="llama", title="Llama", class_name="LlamaForCausalLM")
