"""A checkpoint depends neither on the number of ranks nor on the ZeRO stage that wrote it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from mmtpp.model.base_folder import build_tiny, save_base
from tests.parity.ranks import STEPS, VOCABULARY, Job, plain_losses, run_ranks

HALF = STEPS // 2
LORA = Job(3, lora=True)
# number of ranks and ZeRO stage, before and after
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
    """Losses of runs that resume elsewhere; jobs with the same number of ranks share processes."""
    losses: dict[str, list[float]] = {name: [] for name in moves}
    for position, (first, end) in ((0, (0, HALF)), (2, (HALF, STEPS))):
        for num_ranks in sorted({move[position] for move in moves.values()}):
            jobs = {}
            for name, move in moves.items():
                if move[position] == num_ranks:
                    checkpoint = str(folder / name)
                    (folder / name).mkdir(exist_ok=True)
                    jobs[name] = replace(
                        move[position + 1],
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
        assert losses[name] == pytest.approx(plain_losses(lora=job.lora), abs=tolerance), name


def test_a_run_resumes_with_other_ranks_and_another_stage(tmp_path: Path):
    """The losses are those of plain PyTorch without an interruption."""
    _check(_move(tmp_path, MOVES), MOVES, tmp_path)


@pytest.mark.slow
def test_a_run_resumes_in_more_topologies(tmp_path: Path):
    _check(_move(tmp_path, MORE_MOVES), MORE_MOVES, tmp_path)


@pytest.mark.parametrize("lora", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_model_sharded_while_loading_trains_and_is_written_whole(tmp_path: Path, lora: bool):
    base, output = tmp_path / "base", tmp_path / "output"
    base.mkdir()
    output.mkdir()
    save_base(build_tiny(VOCABULARY, seed=0), VOCABULARY, base)
    job = Job(3, lora=lora, base=str(base), output=str(output))
    (sharded,) = run_ranks(2, job)
    assert sharded.losses == pytest.approx(plain_losses(lora=lora), abs=5e-5)
    # ZeRO-3 keeps shards elsewhere: the model's own parameters on rank 0 are empty
    backbone = build_tiny(VOCABULARY, seed=0)
    assert sharded.held_elements < 0.2 * sum(
        parameter.numel() for parameter in backbone.parameters()
    )
    name = "adapter_model.safetensors" if lora else "model.safetensors"
    written = load_file(output / name)
    assert all(tensor.numel() and torch.isfinite(tensor).all() for tensor in written.values())
    if lora:
        # a fresh adapter's second matrices are zero
        assert all(tensor.any() for name, tensor in written.items() if "lora_B" in name)
    if not lora:
        untrained = load_file(base / name)
        assert written.keys() == untrained.keys()
        assert all(written[key].shape == tensor.shape for key, tensor in untrained.items())
