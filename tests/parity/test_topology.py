"""A checkpoint does not know how many ranks, or which ZeRO stage, wrote it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtpp.model.qwen_vl import build_tiny, save_base
from tests.parity.ranks import STEPS, VOCABULARY, Job, plain_losses, run_ranks

HALF = STEPS // 2
LORA = Job(3, lora=True)
# ranks and stage before and after
MOVES = {
    "fewer ranks, no ZeRO": (2, Job(2), 1, Job(0)),
    "adapter, fewer ranks": (2, LORA, 1, Job(2, lora=True)),
    "more ranks, parameters sharded": (1, Job(0), 2, Job(3)),
}
MORE_MOVES = {
    "adapter, twice the ranks": (2, LORA, 4, LORA),
    "half the ranks": (4, Job(1), 2, Job(2)),
    "sharded parameters on one rank, which shards nothing": (4, Job(3), 1, Job(3)),
    "bfloat16, fewer ranks": (
        2,
        Job(2, precision="bfloat16"),
        1,
        Job(1, precision="bfloat16"),
    ),
}


def _move(folder: Path, moves: dict) -> dict[str, list[float]]:
    """Losses of each run that went on elsewhere; jobs of as many ranks share their processes."""
    losses: dict[str, list[float]] = {name: [] for name in moves}
    for place, (first, end) in ((0, (0, HALF)), (2, (HALF, STEPS))):
        for num_ranks in sorted({move[place] for move in moves.values()}):
            jobs = {}
            for name, move in moves.items():
                if move[place] == num_ranks:
                    checkpoint = str(folder / name)
                    (folder / name).mkdir(exist_ok=True)
                    jobs[name] = replace(
                        move[place + 1],
                        first=first,
                        end=end,
                        **({"load": checkpoint} if first else {"save": checkpoint}),
                    )
            for name, result in zip(jobs, run_ranks(num_ranks, *jobs.values()), strict=True):
                losses[name] += result.losses
    return losses


def _check(losses: dict[str, list[float]], moves: dict, folder: Path) -> None:
    for name, (num_ranks, job, _, _) in moves.items():
        assert len(list((folder / name).glob("*.safetensors"))) == num_ranks, name
        tolerance = 5e-5 if job.precision == "float32" else 0.05
        assert plain_losses(lora=job.lora) == pytest.approx(losses[name], abs=tolerance), name


def test_a_run_goes_on_with_other_ranks_and_another_stage(tmp_path: Path):
    """As plain PyTorch does that never stopped."""
    _check(_move(tmp_path, MOVES), MOVES, tmp_path)


@pytest.mark.slow
def test_a_run_goes_on_anywhere(tmp_path: Path):
    _check(_move(tmp_path, MORE_MOVES), MORE_MOVES, tmp_path)


@pytest.mark.parametrize("lora", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_model_that_is_sharded_while_it_is_loaded_trains_and_is_written_whole(
    tmp_path: Path, lora: bool
):
    base, output = tmp_path / "base", tmp_path / "output"
    base.mkdir()
    output.mkdir()
    save_base(build_tiny(VOCABULARY, seed=0), VOCABULARY, base)
    job = Job(3, lora=lora, base=str(base), output=str(output))
    (sharded,) = run_ranks(2, job)
    assert plain_losses(lora=lora) == pytest.approx(sharded.losses, abs=5e-5)
    # what rank 0 holds of a parameter is elsewhere, in parts: of the model itself nothing is left
    backbone = build_tiny(VOCABULARY, seed=0)
    assert sharded.held_elements < 0.2 * sum(each.numel() for each in backbone.parameters())
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    written = load_file(output / name)
    assert all(each.numel() and torch.isfinite(each).all() for each in written.values())
    if lora:
        # a fresh adapter's second matrices are zero
        assert all(each.any() for name, each in written.items() if "lora_B" in name)
    if not lora:
        untrained = load_file(base / name)
        assert untrained.keys() == written.keys()
        assert all(each.shape == written[key].shape for key, each in untrained.items())
