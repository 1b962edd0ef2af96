"""When a row without frames must pass a black frame through the vision tower."""

import pytest

from mmtpp.config.load import config_from_tree

TRAINED = {"lora": {"rank": 0}}
FROZEN = {"lora": {"rank": 0}, "training": {"freeze_vision": True}}
ADAPTED = {"lora": {"rank": 4}}


@pytest.mark.parametrize(
    ("trained", "images", "stage", "expected"),
    [
        (TRAINED, "on_change", 2, True),
        (TRAINED, "on_change", 3, True),
        (FROZEN, "on_change", 2, False),
        (ADAPTED, "on_change", 2, False),
        (ADAPTED, "on_change", 3, True),  # ranks without images would not gather its shards
        (TRAINED, "none", 2, False),
        (ADAPTED, "none", 3, False),
    ],
)
def test_only_ranks_that_wait_for_each_other_need_it(
    trained: dict, images: str, stage: int, expected: bool
):
    tree = {**trained, "template": {"images": images}, "zero": {"stage": stage}}
    assert config_from_tree(tree).shows_blank_frame == expected
