"""The evaluate job: held-out likelihoods, and forecasts of every event compared with baselines.

Every held-out event is scored exactly once, given the true events before it in its window. The job
runs on the driver; Ray Data does the work.
"""

import logging

from mmtpp.config.schema import RunConfig
from mmtpp.core.representation.tasks import EVENT_TASKS
from mmtpp.data.prepared_store import load_store
from mmtpp.evaluate.answers import evaluate_answers, plan_answers
from mmtpp.evaluate.check_model import check_model
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.evaluation_scores import EvaluationScores, join_scores
from mmtpp.evaluate.evaluation_start import identify_evaluation, start_evaluation
from mmtpp.evaluate.forecasts import evaluate_forecasts
from mmtpp.evaluate.kinds.model_kinds import build_evaluated_model
from mmtpp.evaluate.likelihoods import evaluate_likelihoods
from mmtpp.model.folders.description import ModelDescription
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket, join, read_bytes
from mmtpp.track.tracked_run import tracked_run
from mmtpp.track.tracker import RunIdentity

logger = logging.getLogger(__name__)


def evaluate(config: RunConfig) -> dict[str, object]:
    """Score a model on the held-out sequences of a store.

    Returns:
        The result of the job:

        - ``run_id``, ``run_name``, ``tracking_uri``, ``metrics`` and ``baselines``;
        - the counts of the store, ``Manifest.counts``;
        - ``note``, where there are too few sequences for confidence intervals;
        - ``events`` and ``events_uri``: number of events whose likelihood was scored, and their
          table; absent if the model was fine-tuned on answers alone;
        - ``targets`` and ``targets_uri``: number of events that were forecast, their table,
          and ``report_uri``, the page of the report, if the model was fine-tuned to forecast;
        - ``answers`` and ``answers_uri``: number of answers to questions in words, and their table,
          if the model was fine-tuned on such questions.

    Raises:
        MmtppError: The store, the model and the settings do not fit together.
    """
    check_bucket(config.run.storage_uri)
    store = load_store(config.store.uri)
    description = check_model(config, store)
    run = identify_evaluation(config, "evaluate", store)
    context = start_evaluation(config, store, description, run)
    scores = _score(context, description)
    run_id = _track(config, store.manifest, scores, run)
    return {
        "run_id": run_id,
        "run_name": run.run_name,
        **store.manifest.counts(),
        **scores.tables,
        "metrics": scores.metrics,
        "baselines": scores.baselines,
        "tracking_uri": config.tracking.uri,
    }


def _score(context: EvaluationContext, description: ModelDescription) -> EvaluationScores:
    """Evaluate what the model was trained for.

    Args:
        context: The evaluation.
        description: Kind and tasks of the model.
    """
    trained_tasks = description.trained_tasks
    tasks = set(trained_tasks.tasks) if trained_tasks else set()
    # before the other parts, which take long: the split may have no question
    answer_plan = plan_answers(context) if "qa" in tasks else None
    scores: list[EvaluationScores] = []
    if trained_tasks is None or trained_tasks.trains_history:
        scores.append(evaluate_likelihoods(context))
    else:
        logger.info("the model was not trained on the tokens of events: they are not scored")
    if trained_tasks is None:
        logger.info("the model was not fine-tuned to forecast: only likelihoods are scored")
        return join_scores(scores)
    if tasks & set(EVENT_TASKS):
        model = build_evaluated_model(description.kind, context, trained_tasks)
        scores.append(evaluate_forecasts(model))
    if answer_plan is not None:
        scores.append(evaluate_answers(context, trained_tasks, answer_plan))
    return join_scores(scores)


def _track(
    config: RunConfig, manifest: Manifest, scores: EvaluationScores, run: RunIdentity
) -> str | None:
    """Record the evaluation in MLflow and return the id of its run."""
    description = (
        f"**evaluate** of `{config.model.adapter or config.model.path}` on the "
        f"{config.evaluation.split} split\n\n- store: `{config.store.uri}`\n"
        f"- results: `{run.run_uri}`"
        + ("\n- artifacts: `report.html`, figures" if scores.report_uri else "")
    )
    with tracked_run(config, manifest, run, job="evaluate", description=description) as tracker:
        tracker.log_metrics(0, scores.metrics)
        tracker.log_metrics(
            0, {f"baseline/{name}": value for name, value in scores.baselines.items()}
        )
        if scores.report_uri:
            tracker.log_folder(join(run.run_uri, "figures"), "figures")
            tracker.log_text("report.html", read_bytes(scores.report_uri).decode())
        return tracker.wait_for_run()
