"""The overhead of training over its arithmetic.

    make bench-train        about ten minutes

1. A training step compared with a bare PyTorch loop on the same rows, in one process.
2. Packed rows compared with sequences padded to the longest sequence of their batch.
3. A step without images compared with the same step and a black frame in the vision tower.
4. A run of two workers on Ray: the cost of checkpoints, and the time from SIGKILL to the next step.

    python -m benchmarks.train text-only        only part 3, printed; a minute

Needs MMTPP_TEST_DATA for the danmaku. Prints a table and writes it to ``train.md`` next to this
file. Fails if a floor is missed.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import statistics
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from mlflow.tracking import MlflowClient
from torch.nn import functional

from benchmarks.engine import single_rank_engine
from benchmarks.measure import finish, machine, table
from benchmarks.prepare import in_new_process
from benchmarks.quality.trial import start_engine
from benchmarks.replicate import publish, read_videos
from benchmarks.stack import danmaku_folder, own_stack
from benchmarks.watch import WorkerWatch
from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.training.lr_schedule import lr_factor
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.batch import Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import write_bytes
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.launch import pretrain
from mmtpp.train.step import LabelWeights, StepContext, train_step

STEPS, MICRO_BATCHES = 12, 4
RUN_STEPS, CHECKPOINT_EVERY = 400, 150  # the demo checkpoints at the same interval
PADDED_TOKENS, PADDED_BATCH = 4096, 4
BUCKET = "s3://mmtpp/train"
RESULT = Path(__file__).with_name("train.md")
CPU = torch.device("cpu")
SHORT, LONG = 256, 512  # tokens in a row without images
TEXT_ONLY = f"step of text-only rows of {SHORT} tokens, without the vision tower over with"


def configuration(max_tokens: int = 512) -> RunConfig:
    """Settings: the demo's model shape, on danmaku with frames."""
    return config_from_tree(
        {
            "source": {"uri": f"{BUCKET}/raw"},
            "store": {"uri": f"{BUCKET}/store"},
            "template": {"style": "minimal", "images": "on_change"},
            "window": {"max_tokens": max_tokens},
            "lora": {"rank": 0},
            "training": {
                "num_steps": RUN_STEPS,
                "num_workers": 2,
                "samples_per_step": MICRO_BATCHES,
                "checkpoint_every": CHECKPOINT_EVERY,
                "log_every": 1,
                "max_failures": 1,
                "validation_sequences": 0,
            },
            "run": {"storage_uri": f"{BUCKET}/runs", "name": "train"},
        }
    )


def _rows(config: RunConfig, count: int) -> tuple[list[PackedRow], Vocabulary]:
    """The first packed rows of the training split."""
    manifest = load_manifest(config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    settings = build_sample_settings(config.sample_sections, manifest, split="train")
    plan = make_plan(settings, vocabulary.token_ids())
    ids = np.random.default_rng(0).permutation(plan.num_samples)[:count]
    table = Assembler(settings, vocabulary.token_ids())(samples_table(plan, ids))
    rows = [row_from_arrow(table, index, image_px=settings.image_px) for index in range(len(table))]
    return rows, vocabulary


def _batcher(
    vocabulary: Vocabulary, config: RunConfig, *, blank_frame: bool | None = None
) -> Batcher:
    pad = vocabulary.special("<|image_pad|>")
    return Batcher(
        image_pad=pad,
        image_px=config.template.image_px,
        device=CPU,
        dtype=torch.float32,
        blank_frame=config.shows_images if blank_frame is None else blank_frame,
    )


def _engine(config: RunConfig, vocabulary: Vocabulary, *, trains_vision: bool) -> DeepSpeedEngine:
    """Build a new tiny model in an engine."""
    model = EventModel(build_tiny(vocabulary, seed=0))
    model.base.model.visual.requires_grad_(trains_vision)
    return single_rank_engine(config, model)


def step_times() -> tuple[list[float], list[float]]:
    """Seconds of our steps and of a bare loop's steps, alternating on the same rows."""
    start_engine()
    config = configuration()
    rows, vocabulary = _rows(config, STEPS * MICRO_BATCHES)
    batcher = _batcher(vocabulary, config)
    engine = _engine(config, vocabulary, trains_vision=True)
    bare = EventModel(build_tiny(vocabulary, seed=0)).train()
    parameters = list(bare.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.01)

    def ours(step: int, rows: list[PackedRow]) -> None:
        label_weights = LabelWeights(config.training.loss_weights, config.tasks)
        train_step(StepContext(engine, batcher, label_weights, len(rows), seed=0), rows, step)

    def plain(step: int, rows: list[PackedRow]) -> None:
        labels = sum(len(row.label_positions()) for row in rows)
        optimizer.param_groups[0]["lr"] = 1e-4 * lr_factor(
            step, num_steps=RUN_STEPS, warmup_fraction=0.1, final_fraction=0.03
        )
        for row in rows:
            (bare(batcher(row))[0].sum() / labels).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return _in_turn(rows, ours, plain)


def _in_turn(
    rows: list[PackedRow], *works: Callable[[int, list[PackedRow]], None]
) -> tuple[list[float], list[float]]:
    """Seconds of the steps of two training loops, alternating on the same rows."""
    seconds: tuple[list[float], list[float]] = ([], [])
    places = list(zip((0, 1), works, strict=True))
    for step in range(STEPS):
        step_rows = rows[step * MICRO_BATCHES : (step + 1) * MICRO_BATCHES]
        for place, work in places if step % 2 else reversed(places):
            started = time.perf_counter()
            work(step, step_rows)
            seconds[place].append(time.perf_counter() - started)
    return seconds[0][2:], seconds[1][2:]  # the first steps allocate memory


def text_only(max_tokens: int) -> float:
    """Time of a step without images, relative to one that trains the tower on a black frame.

    The steps alternate on the same rows; the result is the median of their ratios.

    Args:
        max_tokens: Length of a row.
    """
    start_engine()
    config = with_values(configuration(max_tokens), {"template.images": "none"})
    rows, vocabulary = _rows(config, STEPS * MICRO_BATCHES)
    label_weights = LabelWeights(config.training.loss_weights, config.tasks)

    def build_step(*, runs_tower: bool) -> Callable[[int, list[PackedRow]], None]:
        engine = _engine(config, vocabulary, trains_vision=runs_tower)
        batcher = _batcher(vocabulary, config, blank_frame=runs_tower)

        def work(step: int, rows: list[PackedRow]) -> None:
            train_step(StepContext(engine, batcher, label_weights, len(rows), seed=0), rows, step)

        return work

    seconds = _in_turn(rows, build_step(runs_tower=False), build_step(runs_tower=True))
    return statistics.median(without / with_it for without, with_it in zip(*seconds, strict=True))


def padding() -> tuple[float, float, float]:
    """Useful tokens per second of packed rows and of padded batches, and the share of padding."""
    torch.set_num_threads(2)
    config = with_values(configuration(PADDED_TOKENS), {"template.images": "none"})
    rows, vocabulary = _rows(config, 16)
    batcher, model = _batcher(vocabulary, config), EventModel(build_tiny(vocabulary, seed=0))

    def packed() -> int:
        for row in rows:
            model(batcher(row))[0].sum().backward()
        return sum(len(row.input_ids) for row in rows)

    sequences = [
        torch.tensor(row.input_ids[row.segment == segment].astype(np.int64))
        for row in rows
        for segment in range(int(row.segment.max()) + 1)
    ]
    order = np.random.default_rng(0).permutation(len(sequences)).tolist()
    batches = [
        [sequences[index] for index in order[at : at + PADDED_BATCH]]
        for at in range(0, len(order), PADDED_BATCH)
    ]

    def padded() -> int:
        for batch in batches:
            ids = torch.nn.utils.rnn.pad_sequence(batch, batch_first=True)
            lengths = torch.tensor([len(sequence) for sequence in batch])
            mask = torch.arange(ids.shape[1]) < lengths[:, None]
            logits = model.base(
                input_ids=ids,
                attention_mask=mask.long(),
                use_cache=False,
                mm_token_type_ids=torch.zeros_like(ids),
            ).logits
            targets = ids.masked_fill(~mask, -100)[:, 1:]
            functional.cross_entropy(
                logits[:, :-1].transpose(1, 2), targets, reduction="sum"
            ).backward()
        return sum(len(sequence) for batch in batches for sequence in batch)

    speeds = []
    for work in (packed, padded):
        work()
        rates = []
        for _ in range(3):
            started = time.perf_counter()
            rates.append(work() / (time.perf_counter() - started))
        speeds.append(statistics.median(rates))
    cells = sum(len(batch) * max(map(len, batch)) for batch in batches)
    return speeds[0], speeds[1], 1 - sum(map(len, sequences)) / cells


def run_on_ray(mlflow_uri: str) -> dict[str, float]:
    """Train with two workers, one of which is killed after two checkpoints."""
    config = configuration()
    write_bytes(f"{BUCKET}/runs/train/.exists", b"")
    watch = WorkerWatch(f"{BUCKET}/runs/train", checkpoints=2)
    watch.start()
    result = pretrain(config)
    watch.end()
    assert watch.killed_at is not None, "no worker was killed"
    client, run_id = MlflowClient(mlflow_uri), str(result["run_id"])
    history = client.get_metric_history(run_id, "train/loss_per_token")
    times = sorted(point.timestamp / 1000 for point in history)
    # the last step before the kill may be logged after it; the longest pause is the restart
    _, resumed = max(pairwise(times), key=lambda pair: pair[1] - pair[0])
    saved = client.get_metric_history(run_id, "time/checkpoint_fraction_so_far")
    waited = client.get_metric_history(run_id, "time/data_wait_fraction_so_far")
    assert any(point.value for point in saved), "no checkpoint was measured"
    steps = [point.value for point in client.get_metric_history(run_id, "time/step_s")]
    return {
        # from the first attempt of the run, which wrote two checkpoints
        "checkpoint": max(point.value for point in saved),
        "waiting": waited[-1].value,
        "restart": resumed - watch.killed_at,
        "step": statistics.median(steps),
    }


def main() -> int:
    """Measure, print and write the results."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    folder = danmaku_folder()
    with own_stack() as stack:
        publish(f"{BUCKET}/raw", read_videos(folder), range(1), with_images=True)
        prepare(configuration())
        if sys.argv[1:] == ["text-only"]:
            print(_text_only_rows(_measure_text_only()))
            return 0
        ours, bare = in_new_process(step_times)
        packed, padded, waste = in_new_process(padding)
        text_ratios = _measure_text_only()
        run = run_on_ray(stack.mlflow_uri)
    step_ratio = statistics.median(ours) / statistics.median(bare)
    packing = packed / padded
    floors = {
        "our step over a bare PyTorch loop's (at most 1.05)": (step_ratio, step_ratio <= 1.05),
        "packed over padded, useful tokens per second (floor 2)": (packing, packing >= 2),
        f"{TEXT_ONLY} (at most 0.9)": (text_ratios[SHORT], text_ratios[SHORT] <= 0.9),
        "share of the time that checkpoints take (below 2 %)": (
            run["checkpoint"],
            run["checkpoint"] < 0.02,
        ),
        "SIGKILL of a worker to the next step, s (below 30)": (run["restart"], run["restart"] < 30),
    }
    figures = {
        "our step, ms, median [range]": _spread(ours),
        "bare step, ms": _spread(bare),
        **_text_only_rows({LONG: text_ratios[LONG]}),
        f"padding in batches of {PADDED_BATCH} sequences of up to {PADDED_TOKENS} tokens": (
            f"{waste:.0%}"
        ),
        "packed, useful tokens per second": f"{packed:,.0f}",
        "padded, useful tokens per second": f"{padded:,.0f}",
        "share of the time spent waiting for data": f"{run['waiting']:.2%}",
        "step of two workers, ms": f"{1000 * run['step']:.0f}",
    }
    text = table(
        "Training",
        f"`make bench-train`; {machine('torch', 'deepspeed', 'ray', used='both used')}. "
        "The tiny model on danmaku with frames; checkpoints every "
        f"{CHECKPOINT_EVERY} steps as in the demo.",
        figures,
        floors={name: f"{value:.3f}" for name, (value, _) in floors.items()},
    )
    return finish(text, RESULT, [name for name, (_, held) in floors.items() if not held])


def _measure_text_only() -> dict[int, float]:
    return {max_tokens: in_new_process(text_only, max_tokens) for max_tokens in (SHORT, LONG)}


def _text_only_rows(ratios: dict[int, float]) -> dict[str, str]:
    return {
        TEXT_ONLY.replace(str(SHORT), str(max_tokens)): f"{ratio:.3f}"
        for max_tokens, ratio in ratios.items()
    }


def _spread(seconds: list[float]) -> str:
    low, middle, high = (
        1000 * value for value in (min(seconds), statistics.median(seconds), max(seconds))
    )
    return f"{middle:.0f} [{low:.0f}-{high:.0f}]"


if __name__ == "__main__":
    sys.exit(main())
