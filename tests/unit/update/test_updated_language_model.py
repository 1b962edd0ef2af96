"""Which folder an update of a language model compares, registers and promotes."""

import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.update.updated_language_model import UpdatedLanguageModel

BASE = "s3://b/base"


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"adapter_uri": "s3://b/r/adapter"}, {"model.adapter": "s3://b/r/adapter"}),
        (
            {"adapter_uri": "s3://b/r/adapter", "best_adapter_uri": "s3://b/r/adapter-best-4"},
            {"model.adapter": "s3://b/r/adapter-best-4"},
        ),
        ({"model_uri": "s3://b/r/model"}, {"model.path": "s3://b/r/model"}),
        (
            {"model_uri": "s3://b/r/model", "best_model_uri": "s3://b/r/model-best-4"},
            {"model.path": "s3://b/r/model-best-4"},
        ),
    ],
)
def test_the_best_model_of_the_training_is_compared(result: dict, expected: dict):
    model = object.__new__(UpdatedLanguageModel)  # its constructor reads the folder of a model
    model.config = config_from_tree({"model": {"path": BASE}})
    assert model.updated_settings(result) == {"model.path": BASE, **expected}
