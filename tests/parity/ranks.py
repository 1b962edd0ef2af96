"""A short run on packed rows: with DeepSpeed, one process per rank, and in plain PyTorch."""

import atexit
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mmtpp.compat.deepspeed_hooks import is_sharded_by_zero3, zero3_shard
from mmtpp.core.training.lr_schedule import lr_factor
from mmtpp.core.training.sample_order import num_micro_batches, share_of_rank
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.event_model import EventModel, EventModelSettings, build_event_model
from mmtpp.model.parameters.lora import attach_lora
from mmtpp.model.parameters.sharding import Sharding
from mmtpp.model.tokens.vocabulary import Vocabulary, load_vocabulary
from tests.helpers.tiny_models import batcher, random_row, tiny_vocabulary
from tests.parity.families import mixed_row

ROOT = Path(__file__).parents[2]
STEPS, SAMPLES = 4, 4
VOCABULARY = tiny_vocabulary()
# very different numbers of labels, one row without images
LENGTHS = [[90], [20, 15], [40], [12]]
LORA_RANK = 4
TIMEOUT_S = 500.0  # for all jobs of a call


def rows_of(step: int, *, images: bool = True, vocabulary: Vocabulary = VOCABULARY) -> list:
    if vocabulary is not VOCABULARY:
        return [
            mixed_row(vocabulary, lengths, seed=10 * step + index)
            for index, lengths in enumerate(LENGTHS)
        ]
    return [
        random_row(VOCABULARY, lengths, seed=10 * step + index, images=images)
        for index, lengths in enumerate(LENGTHS)
    ]


@dataclass(frozen=True)
class Job:
    """A run, or a part of one.

    Attributes:
        stage: ZeRO stage.
        lora: Whether to train an adapter instead of all parameters.
        precision: ``float32`` or ``bfloat16``.
        first, end: The first step and the step after the last.
        load, save: Folders of the checkpoints to start from and to write; empty for none.
        save_after: Number of steps after which to save and continue; 0 saves at the end.
        base: Folder of a model to load, sharded by ZeRO-3 from the start; empty for a fresh model.
        output: Folder for the trained model; empty for none.
        poisoned: Step at which a gradient becomes infinite; -1 for none.
        optimizer, rounding: Settings of the sections ``optimizer`` and ``optimizer_precision``.
        images: Whether rows show images; without images the vision tower is frozen.
        blank_frame: Whether the tower sees a black frame in rows without images.
    """

    stage: int
    lora: bool = False
    precision: str = "float32"
    first: int = 0
    end: int = STEPS
    load: str = ""
    save: str = ""
    save_after: int = 0
    base: str = ""
    output: str = ""
    poisoned: int = -1
    optimizer: dict = field(default_factory=dict)
    rounding: dict = field(default_factory=dict)
    images: bool = True
    blank_frame: bool = True


@dataclass(frozen=True)
class Result:
    """The result on rank 0.

    Attributes:
        losses: Loss of each step in nats per label.
        grad_norms: Gradient norm of each step before clipping.
        error: Error that stopped the run; empty for none.
        unchanged: Whether the step that the error stopped changed no parameter.
        held_elements: Elements of the built model that this rank held itself.
        tower_passes: Forward passes of this rank's vision tower.
        traffic: Bytes of the messages of the last step, by collective.
    """

    losses: list[float]
    grad_norms: list[float]
    error: str = ""
    unchanged: bool = False
    held_elements: int = 0
    tower_passes: int = 0
    traffic: dict[str, int] = field(default_factory=dict)


_COLLECTIVES = (
    "all_reduce",
    "reduce",
    "broadcast",
    "all_gather",
    "all_gather_into_tensor",
    "reduce_scatter_tensor",
)
_traffic: Counter[str] = Counter()


def _count_traffic() -> None:
    """Count the bytes of torch's collectives, by name, in this process."""
    distributed = torch.distributed
    for name in _COLLECTIVES:
        original = getattr(distributed, name)

        def counted(*arguments: Any, _name: str = name, _call: Any = original, **options: Any):
            tensors = [value for value in (*arguments, *options.values()) if _is_tensor(value)]
            # input and output differ where a message is gathered or scattered
            _traffic[_name] += max(value.numel() * value.element_size() for value in tensors)
            return _call(*arguments, **options)

        setattr(distributed, name, counted)


def _is_tensor(value: object) -> bool:
    return isinstance(value, torch.Tensor)


def event_model(
    *, lora: bool, dtype: torch.dtype = torch.float32, images: bool = True
) -> EventModel:
    backbone = build_tiny(VOCABULARY, seed=0, dtype=dtype)
    backbone.model.visual.requires_grad_(images)
    if not lora:
        return EventModel(backbone).train()
    torch.manual_seed(0)
    adapted = attach_lora(backbone, VOCABULARY.added_ids, rank=LORA_RANK, alpha=16, dropout=0.0)
    return EventModel(adapted).train()


def _vocabulary_of(base: str) -> Vocabulary:
    vocabulary = load_vocabulary(Path(base)) if base else VOCABULARY
    return VOCABULARY if vocabulary.hash == VOCABULARY.hash else vocabulary


def loaded_model(
    base: str, *, lora: bool, dtype: torch.dtype, images: bool, sharding: Sharding | None = None
) -> EventModel:
    """A model of a folder, with the settings of a ``Job``."""
    settings = EventModelSettings(
        lora_rank=LORA_RANK * lora,
        lora_alpha=16,
        lora_dropout=0.0,
        freeze_vision=not images,
        activation_checkpointing=False,
        seed=0,
        dtype=dtype,
    )
    folder = Path(base)
    return build_event_model(settings, load_vocabulary(folder), path=folder, sharding=sharding)


def plain_losses(
    *,
    lora: bool = False,
    make_update: Callable | None = None,
    images: bool = True,
    base: str = "",
) -> list[float]:
    """The run in a few lines of PyTorch: the mean over all labels of a step, one update.

    Args:
        lora: Whether to train an adapter.
        make_update: Makes ``update(lr, step)`` from the model and a function that computes the
            gradients of a step again; None for torch's AdamW.
        images: Whether rows show images; without images the vision tower is frozen.
        base: Folder of a model to load; empty for a fresh model.
    """
    vocabulary = _vocabulary_of(base)
    if base:
        model = loaded_model(base, lora=lora, dtype=torch.float32, images=images)
    else:
        model = event_model(lora=lora, images=images)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def gradients(step: int) -> float:
        model.zero_grad()
        make_batch = batcher(vocabulary, blank_frame=not base)
        rows = rows_of(step, images=images, vocabulary=vocabulary)
        nll = torch.cat([model(make_batch(row))[0] for row in rows])
        nll.mean().backward()
        return float(nll.detach().mean())

    if make_update is None:
        adamw = torch.optim.AdamW(parameters, betas=(0.9, 0.95), weight_decay=0.01)

        def update(lr: float, _step: int) -> None:
            adamw.param_groups[0]["lr"] = lr
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            adamw.step()
    else:
        update = make_update(model, gradients)
    losses = []
    for step in range(STEPS):
        losses.append(gradients(step))
        factor = lr_factor(step, num_steps=STEPS, warmup_fraction=0.0, final_fraction=0.5)
        update(1e-2 * factor, step)
    return losses


class RankGroup:
    """Processes that wait for jobs, one process per rank.

    Loading torch, DeepSpeed and transformers takes longer than most jobs, so all tests of a pytest
    process share the groups. Every job builds its own model and engine.

    Args:
        num_ranks: Number of processes.
    """

    def __init__(self, num_ranks: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        self._folder = tempfile.TemporaryDirectory()
        self._outputs = [Path(self._folder.name, f"rank-{rank}.log") for rank in range(num_ranks)]
        self._num_results = 0
        self._processes = [
            self._start(rank, {"WORLD_SIZE": str(num_ranks), "MASTER_PORT": port})
            for rank in range(num_ranks)
        ]
        atexit.register(self.stop)

    def _start(self, rank: int, environment: dict[str, str]) -> subprocess.Popen:
        own = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_ADDR": "127.0.0.1"}
        with self._outputs[rank].open("w") as output:
            return subprocess.Popen(
                [sys.executable, "-m", "tests.parity.ranks"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                env={**os.environ, **environment, **own, "DS_ACCELERATOR": "cpu"},
            )

    def run(self, jobs: Sequence[Job]) -> list[Result]:
        """Run jobs one after the other; the results are those of rank 0.

        Raises:
            AssertionError: A process has failed, or the jobs took too long.
        """
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
            process.stdin.flush()
        deadline = time.monotonic() + TIMEOUT_S
        first, self._num_results = self._num_results, self._num_results + len(jobs)
        while len(lines := self._result_lines()) < self._num_results:
            is_alive = all(process.poll() is None for process in self._processes)
            if not is_alive or time.monotonic() > deadline:
                raise AssertionError("\n".join(output.read_text() for output in self._outputs))
            time.sleep(0.02)
        return [Result(**json.loads(line)) for line in lines[first:]]

    def stop(self) -> None:
        """End the processes."""
        atexit.unregister(self.stop)
        for process in self._processes:
            process.kill()
            process.wait()
            assert process.stdin is not None
            process.stdin.close()
        self._folder.cleanup()

    def _result_lines(self) -> list[str]:
        # a line that is still being written has no end yet
        lines = self._outputs[0].read_text().split("\n")[:-1]
        return [line.removeprefix("RESULT ") for line in lines if line.startswith("RESULT ")]


_groups: dict[int, RankGroup] = {}


def run_ranks(num_ranks: int, *jobs: Job) -> list[Result]:
    """Run jobs one after the other in ``num_ranks`` processes, which later calls use again."""
    group = _groups.pop(num_ranks, None) or RankGroup(num_ranks)
    try:
        results = group.run(jobs)
    except BaseException:
        group.stop()
        raise
    _groups[num_ranks] = group
    return results


def _rank_main() -> None:
    import deepspeed

    torch.set_num_threads(1)
    _count_traffic()  # DeepSpeed looks some collectives up when it starts
    deepspeed.init_distributed("gloo", verbose=False)
    rank, num_ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    for line in sys.stdin:
        for job in json.loads(line):
            result = _run(Job(**job), rank=rank, num_ranks=num_ranks)
            if rank == 0:
                sys.stdout.write(f"RESULT {json.dumps(asdict(result))}\n")
                sys.stdout.flush()


def _run(job: Job, *, rank: int, num_ranks: int) -> Result:
    from mmtpp.config.load import config_from_tree
    from mmtpp.core.errors import NonFiniteLossError
    from mmtpp.model.event_model import save_trained
    from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
    from mmtpp.train.engine.zero import build_deepspeed_config, zero_stage
    from mmtpp.train.engine.zero3_loading import Zero3Sharding
    from mmtpp.train.step import LabelWeights, StepContext, train_step

    config = config_from_tree(
        {
            "zero": {"stage": job.stage},
            "optimizer": job.optimizer,
            "optimizer_precision": job.rounding,
            "training": {
                "num_steps": STEPS,
                "samples_per_step": SAMPLES,
                "learning_rate": 1e-2,
                "warmup_fraction": 0.0,
                "final_lr_fraction": 0.5,
            },
        }
    )
    deepspeed_config = build_deepspeed_config(
        config.training,
        config.zero,
        config.optimizer,
        num_ranks=num_ranks,
        precision=job.precision,
        on_gpu=False,
    )
    dtype = torch.bfloat16 if job.precision == "bfloat16" else torch.float32
    held = 0
    vocabulary = _vocabulary_of(job.base)
    if job.base:
        sharding = Zero3Sharding(deepspeed_config) if zero_stage(deepspeed_config) == 3 else None
        model = loaded_model(
            job.base, lora=job.lora, dtype=dtype, images=job.images, sharding=sharding
        )
        held = sum(parameter.numel() for parameter in model.parameters())
    else:
        model = event_model(lora=job.lora, dtype=dtype, images=job.images)
    engine = DeepSpeedEngine(
        model,
        deepspeed_config,
        training=config.training,
        optimizer_settings=config.optimizer,
        optimizer_precision=config.optimizer_precision,
        rank=rank,
        num_ranks=num_ranks,
    )
    tower = model.family.vision_tower(model.base)
    context = StepContext(
        engine,
        batcher(vocabulary, dtype, blank_frame=job.blank_frame and tower is not None),
        LabelWeights(config.training.loss_weights, config.tasks),
        num_micro_batches=num_micro_batches(SAMPLES, num_ranks=num_ranks),
        seed=0,
    )
    if job.load:
        engine.load(Path(job.load), num_steps=job.first)
    passes: list[None] = []
    if tower is not None:
        tower.register_forward_pre_hook(lambda *_: passes.append(None))
    losses, norms = [], []
    error, unchanged = "", False
    for step in range(job.first, job.end):
        rows = rows_of(step, images=job.images, vocabulary=vocabulary)
        mine = share_of_rank(torch.arange(SAMPLES).numpy(), rank=rank, num_ranks=num_ranks)
        handles = _poison(model, rank) if step == job.poisoned else []
        _traffic.clear()
        before = [_held(parameter).clone() for parameter in model.parameters()]
        try:
            report = train_step(context, [rows[index] for index in mine], step)
        except NonFiniteLossError as stopped:
            error = str(stopped)
            unchanged = all(map(torch.equal, before, map(_held, model.parameters())))
            break
        finally:
            for handle in handles:
                handle.remove()
        losses.append(float(report.losses.nll.sum() / report.losses.num_labels.sum()))
        norms.append(report.grad_norm)
        if step + 1 == job.save_after:
            engine.save(Path(job.save))
    traffic = dict(_traffic)
    if job.save and not job.save_after:
        engine.save(Path(job.save))
    if job.output:
        parameters = engine.whole_parameters()
        if rank == 0:
            save_trained(
                engine.model, vocabulary, Path(job.output), base="base", parameters=parameters
            )
    return Result(losses, norms, error, unchanged, held, len(passes), traffic)


def _held(parameter: torch.Tensor) -> torch.Tensor:
    """The part of a parameter that this rank holds."""
    held = zero3_shard(parameter) if is_sharded_by_zero3(parameter) else parameter
    return held.detach()


def _poison(model: EventModel, rank: int) -> list:
    """Make one gradient of the last rank infinite."""
    if rank != int(os.environ["WORLD_SIZE"]) - 1:
        return []
    layer = model.base.model.language_model.layers[0].mlp
    return [
        layer.register_full_backward_hook(  # pyright: ignore[reportAttributeAccessIssue]
            lambda _module, gradients, _outputs: tuple(
                gradient * torch.inf for gradient in gradients
            )
        )
    ]


if __name__ == "__main__":
    _rank_main()
