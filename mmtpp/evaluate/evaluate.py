"""The evaluate job: held-out likelihoods, and forecasts of every event, against baselines.

Every held-out event is scored exactly once, given the true events before it in its window. Runs on
the driver; the work is in Ray Data.
"""

import logging
from dataclasses import replace
from typing import Any

import pyarrow.compute as pc

from mmtpp.config.fingerprint import run_name
from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import DataError
from mmtpp.core.tasks import EVENT_TASKS, check_futures
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.settings import assemble_settings, store_vocabulary
from mmtpp.evaluate.answers import evaluate_answers
from mmtpp.evaluate.forecast_scores import evaluate_forecasts
from mmtpp.evaluate.likelihood import (
    baseline_metrics,
    loss_metrics,
    score_windows,
    summarize,
    training_statistics,
)
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.loaded import ModelSource
from mmtpp.model.record import check_template, recorded_answers
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary
from mmtpp.runtime.hardware import choose_hardware
from mmtpp.runtime.machines import data_tasks, wait_for
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import check_bucket, join, read_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker, RunIdentity
from mmtpp.track.provenance import versions
from mmtpp.track.run_labels import job_tags, tracked_store

logger = logging.getLogger(__name__)

TRACKER_WAIT_S = 20.0


def evaluate(config: RunConfig) -> dict[str, object]:
    """Score a model on the held-out sequences of a store.

    Returns:
        ``run_id``, ``metrics``, ``baselines``, a ``note`` where the sequences are too few for
        confidence intervals, and where the tables are, one row an event: of
        ``events`` whose likelihood was scored, unless the model was fine-tuned on answers alone,
        of ``targets`` that were forecast, if it was fine-tuned at all, and of ``answers`` to
        questions in words, if it was fine-tuned on those.

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
    answers = recorded_answers(scored)
    if futures := config.evaluation.futures:
        check_futures(
            () if answers is None else answers.tasks,
            where=scored,
            setting=f"evaluation.futures = {futures}",
        )
    start_ray()
    wait_for(data_tasks(config), patience_s=config.run.wait_for_machines_s)
    source = ModelSource(
        config.model.path,
        config.model.adapter,
        manifest.vocabulary_hash,
        choose_hardware(config).precision,
    )
    name = run_name(config, "evaluate", store=manifest.fingerprint)
    run_uri = join(config.run.storage_uri, name)
    result: dict[str, Any] = {}
    metrics: dict[str, float] = {}
    baselines: dict[str, float] = {}
    if answers is None or answers.history:
        result = _likelihoods(config, source, manifest, vocabulary, run_uri)
        metrics |= result.pop("metrics")
        baselines |= result.pop("baselines")
    else:
        logger.info("the model was fine-tuned on answers alone: forecasts only")
    if answers is None:
        logger.info("the model was not fine-tuned to forecast: likelihoods only")
    elif set(answers.tasks) & set(EVENT_TASKS):
        found = evaluate_forecasts(config, source, answers, manifest, vocabulary, run_uri)
        metrics |= found.metrics
        baselines |= found.baselines
        result |= {
            "targets": found.num_targets,
            "targets_uri": found.targets_uri,
            "report_uri": found.report_uri,
            **({"note": found.note} if found.note else {}),
        }
    if answers is not None and "qa" in answers.tasks:
        of_answers, count, uri = evaluate_answers(
            config, source, answers, manifest, vocabulary, run_uri
        )
        metrics |= of_answers
        result |= {"answers": count, "answers_uri": uri}

    key = f"{name}-{manifest.fingerprint[:16]}"
    tracker = MlflowTracker.from_run(config.tracking, RunIdentity(name, run_uri, key))
    tracker.log_params(flat_settings(config))
    tracker.set_tags(
        {
            **job_tags("evaluate"),
            "mmtpp.store_fingerprint": manifest.fingerprint,
            **versions(),
        }
    )
    tracker.set_description(
        f"**evaluate** of `{config.model.adapter or config.model.path}` on the "
        f"{config.evaluation.split} split\n\n- store: `{config.store.uri}`\n- results: `{run_uri}`"
        + ("\n- artifacts: `report.html`, figures" if "targets" in result else "")
    )
    tracker.log_dataset(tracked_store(config.store.uri, manifest, context="evaluation"))
    tracker.log_metrics(0, metrics)
    tracker.log_metrics(0, {f"baseline/{metric}": value for metric, value in baselines.items()})
    if "targets" in result:
        tracker.log_folder(join(run_uri, "figures"), "figures")
        tracker.log_text("report.html", read_bytes(result["report_uri"]).decode())
    run_id = tracker.wait_for_run(TRACKER_WAIT_S)
    tracker.close("FINISHED")
    return {
        "run_id": run_id,
        "run_name": name,
        **manifest.counts(),
        **result,
        "metrics": metrics,
        "baselines": baselines,
        "tracking_uri": config.tracking.uri,
    }


def _likelihoods(
    config: RunConfig,
    source: ModelSource,
    manifest: Manifest,
    vocabulary: Vocabulary,
    run_uri: str,
) -> dict[str, Any]:
    """``events``, ``metrics``, ``baselines`` and where the table of events is."""
    settings = assemble_settings(config, manifest, split=config.evaluation.split)
    plan = make_plan(settings, vocabulary.token_ids())
    windows = score_windows(config, settings, source, manifest, plan)
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
    events_uri = join(run_uri, "events.parquet")
    kept = events.drop_columns(["window_nll", "window_tokens", "window_events"])
    write_table(events_uri, kept)
    return {
        "events": len(events),
        "metrics": {
            **loss_metrics(windows),
            **summarize(events, manifest.seconds_per_unit),
            **plan.long_texts.figures(),
        },
        "baselines": baseline_metrics(events, statistics),
        "events_uri": events_uri,
    }
