"""The parameters that LoRA adds to the 3B and 7B, compared with arithmetic; on the meta device."""

import pytest

from mmtpp.config.model_settings import FullSize
from mmtpp.model.full_size import build_without_weights, full_size_config
from mmtpp.model.parameters.lora import attach_lora, trainable_parameters
from mmtpp.model.tokens.vocabulary import NUM_ADDED, Vocabulary
from tests.helpers.qwen_vocabulary import qwen_vocabulary

RANK = 16
# modules, LoRA parameters, parameters of the model: from the paper's setting and the model cards
EXPECTED = {"3b": (252, 29_933_568, 3_754_622_976), "7b": (196, 40_370_176, 8_292_166_656)}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return qwen_vocabulary()


@pytest.mark.parametrize("preset", ["3b", "7b"])
def test_lora_adapts_the_language_model_and_the_added_rows_only(
    preset: FullSize, vocabulary: Vocabulary
):
    text = full_size_config(preset).text_config
    model = build_without_weights(preset)
    modules, of_lora, total = EXPECTED[preset]
    assert (0, trainable_parameters(model)[1]) == (0, total)
    adapted = attach_lora(model, vocabulary.added_ids, rank=RANK, alpha=64, dropout=0.1)
    trained = {
        name: parameter.numel()
        for name, parameter in adapted.named_parameters()
        if parameter.requires_grad
    }
    adapters = {name: size for name, size in trained.items() if "lora_" in name}
    assert sum("lora_A" in name for name in adapters) == modules
    assert sum(adapters.values()) == of_lora
    assert not [name for name in trained if "visual" in name]
    # a matrix of in x out gets rank x (in + out) parameters
    width, keys = text.hidden_size, text.num_key_value_heads * 128  # pyright: ignore[reportAttributeAccessIssue]
    layer = 2 * (width + width) + 2 * (width + keys) + 3 * (width + text.intermediate_size)  # pyright: ignore[reportAttributeAccessIssue]
    assert of_lora == RANK * layer * text.num_hidden_layers  # pyright: ignore[reportAttributeAccessIssue]
    assert modules == 7 * text.num_hidden_layers  # pyright: ignore[reportAttributeAccessIssue]
    # the rows of the added tokens, in embedding and head, which are one matrix in the 3B
    rows = NUM_ADDED * width * (1 if preset == "3b" else 2)
    assert sum(trained.values()) - of_lora == rows
    if preset == "3b":
        assert rows <= 271 * 2048
    assert vocabulary.num_tokens <= text.vocab_size  # pyright: ignore[reportAttributeAccessIssue]
