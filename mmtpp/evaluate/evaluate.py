"""The evaluate job: held-out likelihoods, and forecasts of every event compared with baselines.

Every held-out event is scored exactly once, given the true events before it in its window. The job
runs on the driver; Ray Data does the work.
"""

import logging

from mmtpp.config.fingerprint import run_name
from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.tasks import EVENT_TASKS
from mmtpp.data.settings import sample_settings, store_vocabulary
from mmtpp.evaluate.answers import evaluate_answers
from mmtpp.evaluate.check_model import check_model
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.forecasts import evaluate_forecasts
from mmtpp.evaluate.likelihoods import evaluate_likelihoods
from mmtpp.evaluate.part_scores import PartScores, join_parts
from mmtpp.model.record import TrainedTasks
from mmtpp.runtime.hardware import choose_hardware
from mmtpp.runtime.machines import data_task_demand, wait_for_machines
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.paths import check_bucket, join, read_bytes
from mmtpp.track.mlflow_tracker import MlflowTracker, RunIdentity
from mmtpp.track.provenance import versions
from mmtpp.track.run_labels import job_tags, tracked_store

logger = logging.getLogger(__name__)


def evaluate(config: RunConfig) -> dict[str, object]:
    """Score a model on the held-out sequences of a store.

    Returns:
        The result of the job:

        - ``run_id``, ``metrics`` and ``baselines``;
        - ``note``, where there are too few sequences for confidence intervals;
        - ``events`` and ``events_uri``: number of events whose likelihood was scored, and their
          table; absent if the model was fine-tuned on answers alone;
        - ``targets`` and ``targets_uri``: number of events that were forecast, and their table,
          if the model was fine-tuned to forecast;
        - ``answers`` and ``answers_uri``: number of answers to questions in words, and their table,
          if the model was fine-tuned on such questions.

    Raises:
        MmtppError: The store, the model and the settings do not fit together.
    """
    check_bucket(config.run.storage_uri)
    manifest = load_manifest(config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    trained_tasks = check_model(config, manifest, vocabulary)
    held_out = sample_settings(config.sample_sections, manifest, split=config.evaluation.split)
    start_ray()
    wait_for_machines(
        data_task_demand(config.store.machine_labels), patience_s=config.run.wait_for_machines_s
    )
    name = run_name(config, "evaluate", store=manifest.fingerprint)
    run_uri = join(config.run.storage_uri, name)
    context = EvaluationContext.from_config(
        config,
        manifest=manifest,
        vocabulary=vocabulary,
        held_out=held_out,
        hardware=choose_hardware(config.training, config.model.precision),
        run_uri=run_uri,
    )
    scores = _score(context, trained_tasks)
    key = f"{name}-{manifest.fingerprint[:16]}"
    run_id = _track(config, manifest, scores, RunIdentity(name, run_uri, key))
    return {
        "run_id": run_id,
        "run_name": name,
        **manifest.counts(),
        **scores.tables,
        "metrics": scores.metrics,
        "baselines": scores.baselines,
        "tracking_uri": config.tracking.uri,
    }


def _score(context: EvaluationContext, trained_tasks: TrainedTasks | None) -> PartScores:
    """Run the parts of the evaluation that the model can answer.

    Args:
        context: The evaluation.
        trained_tasks: Tasks that the model was trained on; None for a model of stage 1.
    """
    parts: list[PartScores] = []
    if trained_tasks is None or trained_tasks.history:
        parts.append(evaluate_likelihoods(context))
    else:
        logger.info("the model was not trained on the tokens of events: they are not scored")
    if trained_tasks is None:
        logger.info("the model was not fine-tuned to forecast: only likelihoods are scored")
        return join_parts(parts)
    tasks = set(trained_tasks.tasks)
    if tasks & set(EVENT_TASKS):
        parts.append(evaluate_forecasts(context, trained_tasks))
    if "qa" in tasks:
        parts.append(evaluate_answers(context, trained_tasks))
    return join_parts(parts)


def _track(
    config: RunConfig, manifest: Manifest, scores: PartScores, identity: RunIdentity
) -> str | None:
    """Record the evaluation in MLflow and return the id of its run."""
    run_uri = identity.run_uri
    with MlflowTracker.from_run(config.tracking, identity) as tracker:
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
            f"{config.evaluation.split} split\n\n- store: `{config.store.uri}`\n"
            f"- results: `{run_uri}`"
            + ("\n- artifacts: `report.html`, figures" if scores.report_uri else "")
        )
        tracker.log_dataset(tracked_store(config.store.uri, manifest, context="evaluation"))
        tracker.log_metrics(0, scores.metrics)
        tracker.log_metrics(
            0, {f"baseline/{name}": value for name, value in scores.baselines.items()}
        )
        if scores.report_uri:
            tracker.log_folder(join(run_uri, "figures"), "figures")
            tracker.log_text("report.html", read_bytes(scores.report_uri).decode())
        return tracker.wait_for_run()
