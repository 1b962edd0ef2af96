"""A short run on packed rows: DeepSpeed with a process for each rank, and plain PyTorch."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from mmtpp.core.order import num_micro_batches, share_of_rank
from mmtpp.core.schedule import lr_factor
from mmtpp.model.event_model import EventModel
from mmtpp.model.lora import attach_lora
from mmtpp.model.qwen_vl import build_tiny
from tests.parity.tiny import batcher, random_row, tiny_vocabulary

ROOT = Path(__file__).parents[2]
STEPS, SAMPLES = 4, 4
VOCABULARY = tiny_vocabulary()
# very different numbers of labels, one row without images
LENGTHS = [[90], [20, 15], [40], [12]]
LORA_RANK = 4


def rows_of(step: int) -> list:
    return [
        random_row(VOCABULARY, lengths, seed=10 * step + index)
        for index, lengths in enumerate(LENGTHS)
    ]


def event_model(*, lora: bool) -> EventModel:
    backbone = build_tiny(VOCABULARY, seed=0)
    if not lora:
        return EventModel(backbone).train()
    torch.manual_seed(0)
    adapted = attach_lora(backbone, VOCABULARY, rank=LORA_RANK, alpha=16, dropout=0.0)
    return EventModel(adapted).train()


def plain_losses(*, lora: bool = False) -> list[float]:
    """The run in ten lines of PyTorch: mean over all labels of the step, one AdamW update."""
    model = event_model(lora=lora)
    parameters = [each for each in model.parameters() if each.requires_grad]
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


def losses_of_ranks(
    num_ranks: int,
    stage: int,
    *,
    lora: bool = False,
    steps: tuple[int, int] = (0, STEPS),
    load: Path | None = None,
    save: Path | None = None,
) -> list[float]:
    """The real thing: steps from the first to before the second, from and to a checkpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    arguments = {"num_ranks": num_ranks, "stage": stage, "lora": lora, "steps": steps,
                 "load": load and str(load), "save": save and str(save)}  # fmt: skip
    outputs = []
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.parity.ranks", json.dumps(arguments | {"rank": rank})],
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
    return json.loads(found.removeprefix("LOSSES "))


def _rank_main(
    *,
    rank: int,
    num_ranks: int,
    stage: int,
    lora: bool,
    steps: tuple[int, int],
    load: str | None,
    save: str | None,
) -> None:
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
    engine = DeepSpeedEngine(
        event_model(lora=lora),
        config,
        rank=rank,
        num_ranks=num_ranks,
        precision="float32",
        device=torch.device("cpu"),
    )
    first, end = steps
    if load:
        engine.load(Path(load), num_updates=first)
    losses = []
    for step in range(first, end):
        rows = rows_of(step)
        mine = share_of_rank(torch.arange(SAMPLES).numpy(), rank=rank, num_ranks=num_ranks)
        report = train_step(
            engine,
            [rows[index] for index in mine],
            batcher(VOCABULARY),
            num_micro_batches=num_micro_batches(SAMPLES, num_ranks=num_ranks),
            weights=config.training.loss_weights,
            seed=0,
            step=step,
        )
        losses.append(float(report.losses.nll.sum() / report.losses.tokens.sum()))
    if save:
        engine.save(Path(save))
    if rank == 0:
        sys.stdout.write(f"LOSSES {json.dumps(losses)}\n")


if __name__ == "__main__":
    _rank_main(**json.loads(sys.argv[1]))
