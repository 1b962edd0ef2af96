"""Settings of a training that contradict each other are refused before any machine is asked for."""

import pytest

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.train.launch.check_settings import check_settings

TINY = with_values(RunConfig(), {"model.preset": "tiny", "lora.rank": 0})


def _check(changes: dict[str, object]) -> None:
    config = with_values(TINY, changes)
    check_settings(config.training, config.model, config.lora)


def test_a_fresh_tiny_with_a_budget_passes():
    _check({"training.max_flops": 1e9})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training.samples_per_step": 1, "training.num_workers": 2}, "at least one sample"),
        ({"training.min_workers": 3, "training.num_workers": 2}, "min_workers is larger"),
        ({"model.preset": "3b"}, "preset 3b needs the folder of its weights"),
        ({"model.adapter": "/adapter"}, "needs its base model and its rank"),
        ({"training.max_flops": 1e9, "model.path": "/model"}, "compares fresh models"),
        ({"training.max_flops": 1e9, "lora.rank": 4}, "compares fresh models"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, object], message: str):
    with pytest.raises(ConfigError, match=message):
        _check(changes)
