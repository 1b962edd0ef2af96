"""The model card shows the settings of the training, and its header is YAML."""

import re
from pathlib import Path

import yaml

from mmtpp.config.load import config_from_tree
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.model.folders.card import CardBackbone, ModelProvenance, format_card, write_merged_card
from mmtpp.model.folders.record import TrainedTasks

TRAINED_TASKS = TrainedTasks(
    ("time", "type"), IntervalRange(1.0, 9.0, 1.0), (0, 1), ("go", "stop|now <b>"), 60.0, False
)


def _origin(
    tree: dict, trained_tasks: TrainedTasks | None, backbone: CardBackbone | None = None
) -> ModelProvenance:
    config = config_from_tree(tree)
    return ModelProvenance(
        config.sample_sections,
        config.model,
        config.lora,
        config.training,
        trained_tasks,
        backbone or CardBackbone(),
    )


def test_the_card_of_an_adapter_on_a_base_from_the_hub():
    tree = {
        "model": {"path": "hf://Qwen/Qwen2.5-VL-3B-Instruct@" + "a" * 40},
        "lora": {"rank": 16, "alpha": 64},
        "compression": {"delta": 0.5},
    }
    card = format_card(_origin(tree, TRAINED_TASKS), steps=1234)
    header = yaml.safe_load(card.split("---")[1])
    assert (header["library_name"], header["base_model"]) == ("peft", "Qwen/Qwen2.5-VL-3B-Instruct")
    for words in (
        "LoRA of rank 16, alpha 64, 1,234 steps",
        r"go, stop\|now \<b\>",
        "60 s",
        "1 to 9",
        "temporal, Delta 0.5",
    ):
        assert words in card
    with_mmtpp, without_mmtpp = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    for code in (with_mmtpp, without_mmtpp):
        compile(code, "card", "exec")
    assert "mmtpp.Forecaster" in with_mmtpp
    assert "PeftModel" in without_mmtpp


def test_the_card_of_a_whole_model_of_stage_one():
    card = format_card(_origin({"lora": {"rank": 0}}, None), steps=5)
    assert {"library_name": "transformers"}.items() <= yaml.safe_load(card.split("---")[1]).items()
    [without_mmtpp] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert "PeftModel" not in without_mmtpp
    assert "a random tiny" in card


def test_the_card_of_an_adapter_with_rows_of_its_own_resizes_the_base():
    backbone = CardBackbone("llama", "LlamaForCausalLM", num_tokens=49422)
    card = format_card(_origin({"lora": {"rank": 8}}, None, backbone), steps=5)
    assert "event-sequences, llama, mmtpp" in card
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    lines = code.splitlines()
    assert lines[3:] == [
        "base = LlamaForCausalLM.from_pretrained(BASE)",
        "base.resize_token_embeddings(49422, mean_resizing=False)",
        "model = PeftModel.from_pretrained(base, FOLDER)",
    ]
    assert "a new row of the embedding" in card


def test_a_merged_model_names_both_of_its_parts(tmp_path: Path):
    write_merged_card(
        tmp_path, base="hf://owner/base@" + "b" * 40, adapter="s3://b/adapter", difference=2e-6
    )
    card = (tmp_path / "README.md").read_text()
    header = yaml.safe_load(card.split("---")[1])
    assert (header["library_name"], header["base_model"]) == ("transformers", "owner/base")
    assert "`s3://b/adapter`" in card
    assert "at most 2e-06 nats" in card
    [without_mmtpp] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    compile(without_mmtpp, "card", "exec")


def test_the_card_of_soft_tokens_promises_nothing_without_mmtpp():
    tree = {"template": {"style": "soft"}, "compression": {"strategy": "none"}}
    card = format_card(_origin(tree, TRAINED_TASKS), steps=10)
    assert "soft.safetensors" in card
    assert "Forecaster.from_pretrained" in card
    assert "Without mmtpp" not in card
    assert "byte" not in card.partition("## Use")[2]
