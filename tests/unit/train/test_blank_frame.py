"""When a row without frames must pass a black frame through the vision tower."""

import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.train.build_worker import _shows_blank_frame

TRAINED = {"lora": {"rank": 0}}
FROZEN = {"lora": {"rank": 0}, "training": {"freeze_vision": True}}
ADAPTED = {"lora": {"rank": 4}}


@pytest.mark.parametrize(
    ("trained", "images", "shards_weights", "expected"),
    [
        (TRAINED, "on_change", False, True),
        (TRAINED, "on_change", True, True),
        (FROZEN, "on_change", False, False),
        (ADAPTED, "on_change", False, False),
        (ADAPTED, "on_change", True, True),  # ranks without images would not gather its shards
        (TRAINED, "none", False, False),
        (ADAPTED, "none", True, False),
    ],
)
def test_only_ranks_that_wait_for_each_other_need_it(
    trained: dict, images: str, shards_weights: bool, expected: bool
):
    config = config_from_tree({**trained, "template": {"images": images}})
    assert _shows_blank_frame(config, shards_weights=shards_weights) == expected
