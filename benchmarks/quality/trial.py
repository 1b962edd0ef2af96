"""One trial: a tiny model trained and tested in this process, with the modules of this project.

Trials do not use Ray Train, checkpoints and MLflow, because starting their processes would take
most of the time of a short run. Other benchmarks measure them.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace

import deepspeed
import numpy as np
import pyarrow as pa
import torch

from benchmarks.engine import single_rank_engine
from benchmarks.quality.learning_curve import LearningCurve
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.row import HISTORY, PackedRow
from mmtpp.core.representation.supervision import EveryEvent, Supervision
from mmtpp.core.seeds import seed_from
from mmtpp.core.training.sample_order import samples_of_step
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.interval_range import interval_range
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.evaluate.actors.expert_scorer import ExpertScorer
from mmtpp.evaluate.actors.target_texts import GenerationTargets, TargetTexts
from mmtpp.evaluate.scores.targets import target_table
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.batch import Batcher
from mmtpp.model.event_model import EventModel
from mmtpp.model.row_forecaster import RowForecaster
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.soft.soft_model import SoftModel
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.train.step import LabelWeights, StepContext, build_smoothing, train_step

CPU = torch.device("cpu")
THREADS = 1


def start_engine() -> None:
    """Set up DeepSpeed for a single process."""
    torch.set_num_threads(THREADS)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ.update(
        {
            "RANK": "0",
            "LOCAL_RANK": "0",
            "WORLD_SIZE": "1",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "DS_ACCELERATOR": "cpu",
        }
    )
    deepspeed.init_distributed("gloo", verbose=False)


@dataclass(frozen=True, slots=True)
class Samples:
    """All rows of a split, assembled on access."""

    settings: SampleSettings
    assembler: Assembler
    table: pa.Table
    fingerprint: str

    @classmethod
    def from_settings(cls, settings: SampleSettings, vocabulary: Vocabulary) -> "Samples":
        """Plan the samples of a split."""
        plan = make_plan(settings, vocabulary.token_ids())
        table = samples_table(plan, np.arange(plan.num_samples))
        assembler = Assembler(settings, vocabulary.token_ids())
        return cls(settings, assembler, table, plan.fingerprint)

    def __len__(self) -> int:
        return len(self.table)

    def assembled(self, index: int) -> pa.Table:
        """One sample as a row of ``assemble.ROW_SCHEMA``."""
        return self.assembler(self.table.slice(index, 1))

    def row(self, index: int) -> PackedRow:
        """One sample as a ``PackedRow``."""
        return row_from_arrow(self.assembled(index), 0, image_px=self.settings.image_px)


def open_store(config: RunConfig) -> tuple[Manifest, Vocabulary]:
    """Load the manifest and the vocabulary of the store."""
    manifest = load_manifest(config.store.uri)
    return manifest, store_vocabulary(config.store.uri, manifest)


def batcher_of(config: RunConfig, vocabulary: Vocabulary) -> Batcher:
    """Build the batcher of a model on the CPU."""
    return Batcher(
        image_pad=vocabulary.special("<|image_pad|>"),
        image_px=config.template.image_px,
        device=CPU,
        dtype=torch.float32,
        blank_frame=config.shows_images,
    )


def train(
    config: RunConfig,
    supervision: Supervision,
    *,
    model: EventModel | None = None,
    one_target: bool = False,
    precision: str = "float32",
    curve: LearningCurve | None = None,
    after_step: Callable[[EventModel, int], None] = lambda _model, _num_steps: None,
) -> tuple[EventModel, float]:
    """Train a tiny model on the training split.

    Args:
        config: Settings of the trial.
        supervision: Which tokens are labels and which questions are asked.
        model: Model of stage 1; None to start from random weights.
        one_target: Train on one target per window, drawn once, like the published code.
        precision: Number format of the model, ``float32`` or ``bfloat16``.
        curve: Counts seconds and events, after those of an earlier stage; None begins at 0.
        after_step: Called with the model and the number of steps after every step; its time is no
            training. The model must be in training mode again when it returns.

    Returns:
        The model, and the CPU seconds of the training.
    """
    manifest, vocabulary = open_store(config)
    samples = Samples.from_settings(
        build_sample_settings(
            config.sample_sections, manifest, split="train", supervision=supervision
        ),
        vocabulary,
    )
    training = config.training
    if model is None:
        model = EventModel(build_tiny(vocabulary, seed=training.seed)).train()
        model.base.model.visual.requires_grad_(config.shows_images)
    context = start_training(
        config, model, tick=interval_range(samples.settings).tick, precision=precision
    )
    curve = curve or LearningCurve()
    seconds_before = curve.seconds
    for step in range(training.num_steps):
        with curve.training():
            chosen = samples_of_step(
                step,
                num_samples=len(samples),
                samples_per_step=training.samples_per_step,
                fingerprint=samples.fingerprint,
                seed=training.seed,
            )
            rows = [
                _with_one_target(samples.row(index), training.seed)
                if one_target
                else samples.row(index)
                for index in chosen.tolist()
            ]
            train_step(context, rows, step)
        curve.num_events += sum(count_labelled_events(row) for row in rows)
        after_step(model, step + 1)
    return model, curve.seconds - seconds_before


def count_labelled_events(row: PackedRow) -> int:
    """Number of events of a row that a step learns from: those with a label."""
    return len(np.unique(row.event[row.label_positions()]))


def start_training(
    config: RunConfig, model: EventModel, *, tick: float = 0.0, precision: str = "float32"
) -> StepContext:
    """What the steps of a training share.

    Args:
        config: Settings of the trial.
        model: Model to train.
        tick: Tick of the clock, for the smoothing of time labels; 0 for none.
        precision: Number format of the model, ``float32`` or ``bfloat16``.
    """
    _, vocabulary = open_store(config)
    training = config.training
    engine = single_rank_engine(config, model, precision=precision)
    smoothing = None
    if not isinstance(model, SoftModel):
        smoothing = build_smoothing(
            training,
            time_bytes=config.template.time_bytes,
            tick=tick,
            byte_ids=vocabulary.token_ids().byte_ids,
        )
    return StepContext(
        engine,
        batcher_of(config, vocabulary),
        LabelWeights(training.loss_weights, config.tasks),
        training.samples_per_step,
        training.seed,
        smoothing,
    )


def forecast(
    config: RunConfig,
    model: EventModel,
    *,
    split: str,
    gated: GatedExpert | None = None,
    generation: GenerationTargets | None = None,
) -> pa.Table:
    """Forecast every target of a split; returns a table of ``targets.TARGET_SCHEMA``.

    Args:
        config: Settings of the trial.
        model: The language model.
        split: Split of the targets.
        gated: Expert that is mixed with the language model; None for none.
        generation: Targets whose texts the model writes; None for none.
    """
    manifest, vocabulary = open_store(config)
    trained = build_sample_settings(config.sample_sections, manifest, split="train")
    spans = interval_range(trained)
    grid = spans.grid(num_bytes=config.template.time_bytes)
    settings = build_sample_settings(
        config.sample_sections,
        manifest,
        split=split,
        supervision=EveryEvent(config.tasks.asked, grid.first_bytes),
        max_sequences=config.evaluation.max_sequences,
    )
    samples = Samples.from_settings(replace(settings, packed=True), vocabulary)
    codes = np.array([code for code, count in enumerate(manifest.type_counts) if count], np.int16)
    forecaster = RowForecaster(
        model.eval(), vocabulary.token_ids(), vocabulary.type_ids(codes.tolist()), grid
    )
    batcher = batcher_of(config, vocabulary)
    scorer = None
    if gated is not None:
        scorer = ExpertScorer(gated, settings.store, tuple(codes.tolist()), grid)
    texts = None
    if generation is not None:
        texts = TargetTexts(model, vocabulary, generation, batcher)
    tables = []
    for index in range(len(samples)):
        assembled = samples.assembled(index)
        row = row_from_arrow(assembled, 0, image_px=settings.image_px)
        windows = samples.table["windows"][index].as_py()
        sample = AssembledRow(row, assembled, windows)
        targets = target_table(
            sample,
            forecaster(row, batcher(row)),
            codes,
            tick=spans.tick,
            num_bytes=config.template.time_bytes,
            expert=scorer(sample) if scorer is not None else None,
        )
        tables.append(targets if texts is None else texts.add_to(targets, row))
    return pa.concat_tables(tables)


def _with_one_target(row: PackedRow, seed: int) -> PackedRow:
    """Keep only the labels of one event per window."""
    assert row.branches is not None
    in_branch = row.branches.branch != HISTORY
    chosen = np.zeros(len(row.may_be_label), dtype=np.bool_)
    for segment in range(int(row.segment.max()) + 1):
        answers = (row.segment == segment) & in_branch & row.may_be_label
        events = np.unique(row.event[answers])
        rng = np.random.default_rng(seed_from("target", seed, row.sample_id, segment) % 2**63)
        chosen |= answers & (row.event == rng.choice(events))
    return replace(row, may_be_label=chosen)
