"""The step's gradient does not depend on how its samples are spread over workers."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mmtpp.core.order import share_of_rank
from mmtpp.core.schedule import lr_factor
from mmtpp.model.event_model import EventModel
from mmtpp.model.qwen_vl import build_tiny
from tests.parity.tiny import batcher, random_row, tiny_vocabulary

ROOT = Path(__file__).parents[2]
STEPS, SAMPLES = 4, 4
VOCABULARY = tiny_vocabulary()
# very different numbers of labels, one row without images
LENGTHS = [[90], [20, 15], [40], [12]]


def rows_of(step: int) -> list:
    return [
        random_row(VOCABULARY, lengths, seed=10 * step + index)
        for index, lengths in enumerate(LENGTHS)
    ]


def plain_losses() -> list[float]:
    """The same run in ten lines of PyTorch: mean over all labels of the step, one AdamW update."""
    model = EventModel(build_tiny(VOCABULARY, seed=0)).train()
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-2, betas=(0.9, 0.95), weight_decay=0.01)
    losses = []
    for step in range(STEPS):
        nll = torch.cat([model(batcher(VOCABULARY)(row))[0] for row in rows_of(step)])
        optimizer.param_groups[0]["lr"] = 1e-2 * lr_factor(
            step, num_steps=STEPS, warmup_fraction=0.0, final_fraction=0.5
        )
        nll.mean().backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(nll.mean()))
    return losses


def rank_main(rank: int, num_ranks: int, stage: int) -> None:
    """One rank of the real thing; prints the losses."""
    import deepspeed

    from mmtpp.config.load import config_from_tree
    from mmtpp.train.engine import DeepSpeedEngine
    from mmtpp.train.step import train_step

    torch.set_num_threads(1)
    deepspeed.init_distributed("gloo", verbose=False)
    config = config_from_tree(
        {
            "zero": {"stage": stage},
            "training": {
                "num_steps": STEPS,
                "samples_per_step": SAMPLES,
                "learning_rate": 1e-2,
                "warmup_fraction": 0.0,
                "final_lr_fraction": 0.5,
            },
        }
    )
    model = EventModel(build_tiny(VOCABULARY, seed=0)).train()
    engine = DeepSpeedEngine(
        model, config, num_ranks=num_ranks, precision="float32", device=torch.device("cpu")
    )
    losses = []
    for step in range(STEPS):
        rows = rows_of(step)
        mine = share_of_rank(torch.arange(SAMPLES).numpy(), rank=rank, num_ranks=num_ranks)
        report = train_step(
            engine,
            [rows[index] for index in mine],
            batcher(VOCABULARY),
            weights=config.training.loss_weights,
            seed=0,
            step=step,
        )
        losses.append(float(report.losses.nll.sum() / report.losses.tokens.sum()))
    if rank == 0:
        sys.stdout.write(f"LOSSES {json.dumps(losses)}\n")


@pytest.mark.parametrize(("num_ranks", "stage"), [(2, 0), (1, 2), (2, 2), (2, 3)])
def test_losses_equal_plain_pytorch(num_ranks: int, stage: int):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    outputs = []
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", f"import tests.parity.test_accumulation as t; "
             f"t.rank_main({rank}, {num_ranks}, {stage})"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(num_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port,
                "DS_ACCELERATOR": "cpu",
            },
        )
        for rank in range(num_ranks)
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=300)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [0] * num_ranks == [process.returncode for process in processes], "\n".join(outputs)
    found = next(line for line in outputs[0].splitlines() if line.startswith("LOSSES "))
    losses = json.loads(found.removeprefix("LOSSES "))
    expected = plain_losses()
    assert expected[0] > expected[-1] + 0.1  # it learns, so a wrong gradient would show
    # measured 2026-11-22: below 5e-6 for every stage
    assert expected == pytest.approx(losses, abs=5e-5)
