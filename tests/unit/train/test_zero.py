"""The configuration that DeepSpeed receives."""

import pytest

from mmtpp.config.load import config_from_tree
from mmtpp.train.engine.zero import build_deepspeed_config, with_bucket_size, zero_stage


def _deepspeed_config(
    stage: int, *, num_ranks: int, precision: str, on_gpu: bool
) -> dict[str, object]:
    config = config_from_tree({"zero": {"stage": stage, "offload": True}})
    return build_deepspeed_config(
        config.training,
        config.zero,
        config.optimizer,
        num_ranks=num_ranks,
        precision=precision,
        on_gpu=on_gpu,
    )


@pytest.mark.parametrize(
    ("stage", "num_ranks", "precision", "on_gpu", "expected"),
    [
        (2, 1, "float32", False, 0),  # nothing to shard
        (3, 1, "float32", False, 0),
        (2, 1, "bfloat16", False, 2),  # ZeRO keeps the float32 weights
        (2, 1, "float32", True, 2),  # offloaded
        (2, 2, "float32", False, 2),
        (0, 2, "float32", True, 0),
    ],
)
def test_one_rank_in_float32_trains_without_zero(
    stage: int, num_ranks: int, precision: str, on_gpu: bool, expected: int
):
    tree = _deepspeed_config(stage, num_ranks=num_ranks, precision=precision, on_gpu=on_gpu)
    assert zero_stage(tree) == expected
    # DeepSpeed clips under ZeRO; otherwise the engine clips
    assert tree["gradient_clipping"] == (1.0 if expected else 0.0)


def test_a_bucket_is_no_larger_than_the_gradients():
    tree = _deepspeed_config(3, num_ranks=2, precision="bfloat16", on_gpu=True)
    for num_trained, expected in ((30, 30), (10**9, 5 * 10**8)):
        sharding = with_bucket_size(tree, num_trained=num_trained)["zero_optimization"]
        assert isinstance(sharding, dict)
        assert (sharding["stage"], sharding["reduce_bucket_size"]) == (3, expected)
    assert "reduce_bucket_size" not in str(tree)
