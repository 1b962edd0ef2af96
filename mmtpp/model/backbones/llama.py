"""Llama: text only. SmolLM2, TinyLlama and Llama 3 are of this family."""

from transformers import LlamaForCausalLM

from mmtpp.model.backbones.family import Family

LLAMA = Family(model_type="llama", title="Llama", model_class=LlamaForCausalLM)
