"""The evaluate job: held-out likelihoods and next-type accuracy against baselines.

Everything is teacher-forced: each event is scored given the true events before it in its window,
exactly once. Runs on the driver; the work is in Ray Data.
"""

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import ray

from mmtpp.config.fingerprint import run_name
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import DataError
from mmtpp.core.scores import LossSums
from mmtpp.data.plan import AssembleSettings, Plan, make_plan, samples_table
from mmtpp.data.prepare import load_model_vocabulary, start_ray
from mmtpp.data.progress import Progress
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.data.store import StoreReader
from mmtpp.evaluate.baselines import ByteMarginal, TrainingStatistics
from mmtpp.evaluate.score import WindowScorer
from mmtpp.model.vocabulary import check_same_vocabulary
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.paths import check_bucket, join, write_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker, RunIdentity
from mmtpp.track.provenance import flat_settings, versions
from mmtpp.train.hardware import choose_hardware
from mmtpp.train.template_record import check_template

logger = logging.getLogger(__name__)

TRACKER_WAIT_S = 20.0


def evaluate(config: RunConfig) -> dict[str, object]:
    """Score a model on the held-out sequences of a store.

    Returns:
        ``run_id``, ``events``, ``metrics``, ``baselines`` and where the table of events is.

    Raises:
        MmtppError: the store, the model and the settings do not fit together.
    """
    check_bucket(config.run.storage_uri)
    manifest = load_manifest(config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    for uri in filter(None, (config.model.path, config.model.adapter)):
        own = load_model_vocabulary(uri)
        check_same_vocabulary(own.hash, vocabulary.hash, where=uri)
    if scored := config.model.adapter or config.model.path:
        check_template(config, scored, to_train=False)
    settings = assemble_settings(config, manifest, split=config.evaluation.split)
    start_ray()
    plan = make_plan(settings, vocabulary.token_ids())
    windows = _score(config, settings, manifest, plan)
    events = windows.filter(pc.field("sequence_id").is_valid())
    if len(events) == 0:
        raise DataError(
            "no event is a target",
            where=config.store.uri,
            setting=f"evaluation.targets_delta = {config.evaluation.targets_delta}, "
            f"compression.delta = {config.compression.delta}",
        )
    # the baseline may know everything before the end of the range, as the models do
    train = replace(assemble_settings(config, manifest, split="train"), time_from=-1e300)
    statistics = training_statistics(train)
    metrics = {**loss_metrics(windows), **summarize(events, manifest.seconds_per_unit)}
    baselines = baseline_metrics(events, statistics)

    name = run_name(config, "evaluate")
    run_uri = join(config.run.storage_uri, name)
    sink = pa.BufferOutputStream()
    pq.write_table(events.drop_columns(["window_nll", "window_tokens"]), sink, compression="zstd")
    events_uri = join(run_uri, "events.parquet")
    write_bytes(events_uri, sink.getvalue().to_pybytes())

    key = f"{name}-{manifest.fingerprint[:16]}"
    tracker = MlflowTracker.of_run(config.tracking, RunIdentity(name, run_uri, key))
    tracker.params(flat_settings(config))
    tracker.tags(
        {"mmtpp.job": "evaluate", "mmtpp.store_fingerprint": manifest.fingerprint, **versions()}
    )
    tracker.metrics(0, metrics)
    tracker.metrics(0, {f"baseline/{key}": value for key, value in baselines.items()})
    run_id = tracker.wait_for_run(TRACKER_WAIT_S)
    tracker.close("FINISHED")
    return {
        "run_id": run_id,
        "run_name": name,
        "events": len(events),
        "metrics": metrics,
        "baselines": baselines,
        "events_uri": events_uri,
        "tracking_uri": config.tracking.uri,
    }


def _score(
    config: RunConfig, settings: AssembleSettings, manifest: Manifest, plan: Plan
) -> pa.Table:
    hardware = choose_hardware(config)
    ids = np.arange(len(plan.samples))
    size = config.evaluation.batch_windows
    blocks = [samples_table(plan, ids[at : at + size]) for at in range(0, len(ids), size)]
    workers = max(1, min(len(blocks), config.training.num_workers))
    scored = ray.data.from_arrow(blocks).map_batches(
        WindowScorer,
        fn_constructor_args=(
            settings,
            config.model.path,
            config.model.adapter,
            manifest.vocabulary_hash,
            [code for code, count in enumerate(manifest.type_counts) if count],
            hardware.precision,
        ),
        batch_size=size,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=workers),
        num_cpus=config.training.cpus_per_worker,
        num_gpus=1 if hardware.on_gpu else None,
    )
    progress = Progress("evaluate", total=len(plan.samples), unit="windows")
    tables: list[pa.Table] = []
    batches: Any = scored.iter_batches(batch_size=None, batch_format="pyarrow")
    for table in batches:
        tables.append(table)
        progress.advance(table.filter(pc.field("window_nll").is_valid()).num_rows)
    progress.close()
    return pa.concat_tables(tables).sort_by([("sequence_id", "ascending"), ("time", "ascending")])


def training_statistics(settings: AssembleSettings) -> TrainingStatistics:
    """Counts of intervals and types over the training split and time range of ``settings``."""
    reader = StoreReader(settings.store)
    statistics = TrainingStatistics(ByteMarginal(settings.template.time_bytes))
    for sequence in reader.sequences(reader.files()):
        first, last = settings.time_range.of(sequence.times)
        if sequence.split == "train" and last - first > 1:
            scored = sequence.events.slice(first + 1, last)
            statistics.add(scored.intervals, scored.types)
    return statistics


def loss_metrics(windows: pa.Table) -> dict[str, float]:
    """Losses per token over all windows, by modality."""
    nll = np.array(windows["window_nll"].drop_null().to_pylist())
    tokens = np.array(windows["window_tokens"].drop_null().to_pylist())
    return LossSums(nll.sum(axis=0), tokens.sum(axis=0)).per_token("test")


def summarize(events: pa.Table, seconds_per_unit: float) -> dict[str, float]:
    """Headline metrics of a table of scored events.

    Args:
        events: ``score.EVENT_SCHEMA``.
        seconds_per_unit: to report intervals in seconds.

    Returns:
        Means with the standard errors of the interval NLL and the accuracy (events taken as
        independent).
    """
    interval_nll = events["interval_nll"].to_numpy()
    right = events["predicted_type"].to_numpy() == events["type"].to_numpy()
    count = len(events)
    return {
        "interval_nll_nats_per_event": float(interval_nll.mean()),
        "interval_nll_standard_error": float(interval_nll.std() / np.sqrt(count)),
        "type_accuracy": float(right.mean()),
        "type_accuracy_standard_error": float(right.std() / np.sqrt(count)),
        "type_nll_nats_per_event": float(events["type_nll"].to_numpy().mean()),
        "text_nll_nats_per_event": float(events["text_nll"].to_numpy().mean()),
        "mean_interval_s": float(events["interval"].to_numpy().mean() * seconds_per_unit),
    }


def baseline_metrics(events: pa.Table, statistics: TrainingStatistics) -> dict[str, float]:
    """The same measures for predictions that need no model, on the same events."""
    types = events["type"].to_numpy()
    marginal = statistics.marginal.nll(events["interval"].to_numpy())
    frequent = int(statistics.type_counts.argmax())
    frequencies = (statistics.type_counts + 1 / 256) / (statistics.num_events + 1)
    return {
        "interval_nll_nats_per_event": float(marginal.mean()),
        "type_accuracy_most_frequent": float((types == frequent).mean()),
        "type_accuracy_last": float((types == events["previous_type"].to_numpy()).mean()),
        "type_nll_nats_per_event": float(-np.log(frequencies[types]).mean()),
    }
