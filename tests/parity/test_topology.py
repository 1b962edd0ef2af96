"""A checkpoint does not know how many ranks, or which ZeRO stage, wrote it."""

from pathlib import Path

import pytest

from tests.parity.ranks import STEPS, losses_of_ranks, plain_losses

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("before", "after", "lora"),
    [
        ((2, 2), (1, 0), False),
        ((1, 0), (2, 3), False),
        ((2, 3), (1, 2), True),
        pytest.param((2, 3), (4, 3), True, marks=slow),
        pytest.param((4, 1), (2, 2), False, marks=slow),
        pytest.param((2, 0), (2, 0), True, marks=slow),
        pytest.param((4, 3), (1, 3), False, marks=slow),
    ],
)
def test_a_run_goes_on_with_other_ranks_and_another_stage(
    tmp_path: Path, before: tuple[int, int], after: tuple[int, int], lora: bool
):
    """As plain PyTorch does that never stopped."""
    half = STEPS // 2
    losses = [
        *losses_of_ranks(*before, lora=lora, steps=(0, half), save=tmp_path),
        *losses_of_ranks(*after, lora=lora, steps=(half, STEPS), load=tmp_path),
    ]
    assert before[0] == len(list(tmp_path.glob("*.safetensors")))
    assert plain_losses(lora=lora) == pytest.approx(losses, abs=5e-5)
