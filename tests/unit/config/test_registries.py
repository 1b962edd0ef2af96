"""The values that a setting allows are the keys of the table that implements them."""

from collections.abc import Iterable
from typing import get_args

import pytest

from mmtpp.config.schema import (
    CompressionSection,
    OptimizerSection,
    Section,
    SourceSection,
    TrainingSection,
)
from mmtpp.config.update_rules import UPDATE_RULES
from mmtpp.core.representation.compression import STRATEGIES
from mmtpp.core.training.lr_schedule import DECAYS
from mmtpp.data.sources import READERS


@pytest.mark.parametrize(
    ("section", "setting", "names"),
    [
        (SourceSection, "kind", [*READERS, "columns"]),  # columns is built from settings
        (CompressionSection, "strategy", STRATEGIES),
        (OptimizerSection, "name", UPDATE_RULES),
        (TrainingSection, "lr_schedule", DECAYS),
    ],
)
def test_a_setting_allows_what_is_registered(
    section: type[Section], setting: str, names: Iterable[str]
):
    assert get_args(section.model_fields[setting].annotation) == tuple(names)
