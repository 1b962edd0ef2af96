"""The combine job: fit the gate that mixes a language model with a temporal expert.

The language model sees types, texts and images in a window; the expert sees a memory of the whole
past and the words of the newest text. The gate is fitted on the validation split, where neither
model was trained, so that the mixture is at least as likely as the better one there. The job runs
on the driver; Ray Data does the work.
"""

import logging
import shutil
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import DataError
from mmtpp.core.forecasting.gate import Gate, IntervalLikelihoods, fit_weight, mix_logs
from mmtpp.data.prepared_store import load_store
from mmtpp.evaluate.check_model import check_model
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.evaluation_start import identify_evaluation, start_evaluation
from mmtpp.evaluate.kinds.evaluated_expert import EvaluatedExpert
from mmtpp.evaluate.kinds.evaluated_language_model import EvaluatedLanguageModel
from mmtpp.expert.gated_expert import write_gate
from mmtpp.inference.mixture_checks import check_clock, check_expert, check_language_model
from mmtpp.model.folders.folder import local_folder
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket, copy_folder, join
from mmtpp.track.tracked_run import tracked_run
from mmtpp.track.tracker import RunIdentity

logger = logging.getLogger(__name__)

SPLIT = "validation"
_OF_EXPERT = "_expert"
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GateFit:
    """A fitted gate, and how good the mixture and its parts are on the events of the fit.

    Attributes:
        gate: Weights of the language model.
        num_events: Number of events of the fit.
        nll: Nats per event of time and type, over events whose interval has a density: of the
            ``language_model``, of the ``expert`` and of the ``mixture``.
    """

    gate: Gate
    num_events: int
    nll: dict[str, float]


def combine(config: RunConfig) -> dict[str, object]:
    """Fit the gate between ``model.path`` and ``model.expert`` on the validation split.

    Returns:
        ``expert_uri``, the folder of the expert with the gate, for ``model.expert``; ``gate``, the
        weights of the language model; ``metrics``, nats per event of the mixture and of its parts
        on the validation split; ``events``, the number of its events; ``run_id``, ``run_name`` and
        ``tracking_uri``, where MLflow has the run.

    Raises:
        MmtppError: The store, the models and the settings do not fit together, or the validation
            split is empty.
    """
    check_bucket(config.run.storage_uri)
    expert_uri, store = config.model.expert, load_store(config.store.uri)
    alone = _without_expert(config)
    model = check_model(alone, store)
    trained_tasks = check_language_model(config.model, model)
    expert_tasks = check_expert(expert_uri, store.manifest, store.vocabulary, where=store.uri)
    check_clock(expert_tasks.interval_range.tick, store.manifest, where=store.uri)
    run = identify_evaluation(config, "combine", store)
    context = start_evaluation(alone, store, model, run)
    fit = _fit(context, trained_tasks, expert_uri, expert_tasks)
    output_uri = join(run.run_uri, "expert")
    _write(fit, config, expert_uri, output_uri)
    metrics = {f"{SPLIT}/{part}_nll_nats_per_event": value for part, value in fit.nll.items()}
    run_id = _track(config, store.manifest, fit, metrics, run)
    return {
        "run_id": run_id,
        "run_name": run.run_name,
        "expert_uri": output_uri,
        "gate": asdict(fit.gate),
        "events": fit.num_events,
        "metrics": metrics,
        "tracking_uri": config.tracking.uri,
    }


def _without_expert(config: RunConfig) -> RunConfig:
    """Settings that forecast the validation split with the language model alone."""
    if config.evaluation.split != SPLIT:
        logger.info(
            "the gate is fitted on the %s split; evaluation.split = %s applies to evaluate alone",
            SPLIT,
            config.evaluation.split,
        )
    changes: dict[str, object] = {"model.expert": "", "evaluation.split": SPLIT}
    return with_values(
        config, changes | {"evaluation.num_futures": 0, "evaluation.num_generated_texts": 0}
    )


def _fit(
    context: EvaluationContext,
    trained_tasks: TrainedTasks,
    expert_uri: str,
    expert_tasks: TrainedTasks,
) -> GateFit:
    """Forecast the validation split with both models, and fit the gate."""
    language_model = EvaluatedLanguageModel(context, trained_tasks)
    location = replace(context.location, model_uri=expert_uri, adapter_uri="")
    expert = EvaluatedExpert(replace(context, location=location), expert_tasks)
    fit = fit_gate(
        language_model.forecast_targets(),
        expert.forecast_targets(),
        tick=context.manifest.tick,
        where=context.store_uri,
    )
    logger.info(
        "nats per event on %d validation events: language model %.3f, expert %.3f, mixture %.3f",
        fit.num_events,
        fit.nll["language_model"],
        fit.nll["expert"],
        fit.nll["mixture"],
    )
    return fit


def fit_gate(of_model: pa.Table, of_expert: pa.Table, *, tick: float, where: str) -> GateFit:
    """Fit the gate to forecasts of the same events, ``targets.TARGET_SCHEMA``.

    Args:
        of_model: Forecasts of the language model.
        of_expert: Forecasts of the expert.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        where: Location of the store, for the error.

    Raises:
        DataError: The models have no common event.
    """
    both = _CommonEvents.from_forecasts(of_model, of_expert, tick=tick)
    if not both.num_events:
        raise DataError(
            "no validation event was forecast by both models",
            where=where,
            cause="the validation split has no sequence of two events",
            setting="split.validation_fraction",
        )
    gate = Gate(
        time=fit_weight(*(likelihoods.log_likelihoods() for likelihoods in both.times)),
        type=fit_weight(*both.types),
    )
    weights = {"language_model": Gate(1, 1), "expert": Gate(0, 0), "mixture": gate}
    # as in joint/nll_nats_per_event: over events whose interval has a density
    nll = {name: float(np.nanmean(sum(both.mixture_nll(parts)))) for name, parts in weights.items()}
    return GateFit(gate, both.num_events, nll)


def mixture_nll(
    of_model: pa.Table, of_expert: pa.Table, gate: Gate, *, tick: float
) -> tuple[FloatArray, FloatArray]:
    """Nats per event of the interval, and of the type given the interval, of a mixture.

    Args:
        of_model: Forecasts of the language model, ``targets.TARGET_SCHEMA``.
        of_expert: Forecasts of the expert for the same events.
        gate: Weights of the language model.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.

    Returns:
        Two arrays of one value for each event that both models forecast; NaN for intervals without
        a density.
    """
    return _CommonEvents.from_forecasts(of_model, of_expert, tick=tick).mixture_nll(gate)


@dataclass(frozen=True, slots=True)
class _CommonEvents:
    """Likelihoods of the N events that both models forecast: language model first, then expert.

    Attributes:
        times: Likelihoods of the intervals by each model.
        types: (N,) log-likelihoods of the types by each model.
    """

    times: tuple[IntervalLikelihoods, IntervalLikelihoods]
    types: tuple[FloatArray, FloatArray]

    @classmethod
    def from_forecasts(
        cls, of_model: pa.Table, of_expert: pa.Table, *, tick: float
    ) -> "_CommonEvents":
        """Join the forecasts of two models by event."""
        both = _same_events(of_model, of_expert)
        times = [
            IntervalLikelihoods(
                _values(both, f"time_nll{end}"), _values(both, f"simultaneous{end}"), tick
            )
            for end in ("", _OF_EXPERT)
        ]
        # a language model without the task joint has one forecast of the type
        joint = "type_nll" if both["joint_type_nll"].null_count else "joint_type_nll"
        types = -_values(both, joint), -_values(both, f"joint_type_nll{_OF_EXPERT}")
        return cls((times[0], times[1]), types)

    @property
    def num_events(self) -> int:
        """Number of events."""
        return len(self.types[0])

    def mixture_nll(self, gate: Gate) -> tuple[FloatArray, FloatArray]:
        """(N,) nats of the interval and (N,) nats of the type, with these weights."""
        time = self.times[0].mixed_with(self.times[1], gate.time)
        return time.nll, -mix_logs(gate.type, *self.types)


def _same_events(of_model: pa.Table, of_expert: pa.Table) -> pa.Table:
    """The events that both models forecast; columns of the expert end with ``_OF_EXPERT``."""
    keys = ["sequence_id", "position"]
    columns = [*keys, "time_nll", "simultaneous", "type_nll", "joint_type_nll"]
    return of_model.select(columns).join(
        of_expert.select(columns), keys, join_type="inner", right_suffix=_OF_EXPERT
    )


def _values(table: pa.Table, name: str) -> FloatArray:
    return table[name].to_numpy().astype(np.float64)


def _write(fit: GateFit, config: RunConfig, expert_uri: str, output_uri: str) -> None:
    """Write the expert's files and the gate."""
    facts: dict[str, object] = {
        "language_model": {"path": config.model.path, "adapter": config.model.adapter},
        "expert": expert_uri,
        "store": config.store.uri,
        "split": SPLIT,
        "events": fit.num_events,
        "nll_nats_per_event": fit.nll,
    }
    with local_folder(expert_uri) as expert, tempfile.TemporaryDirectory() as folder:
        assert expert is not None
        shutil.copytree(expert, folder, dirs_exist_ok=True)
        write_gate(fit.gate, Path(folder), facts)
        copy_folder(folder, output_uri)


def _track(
    config: RunConfig,
    manifest: Manifest,
    fit: GateFit,
    metrics: dict[str, float],
    run: RunIdentity,
) -> str | None:
    """Record the gate in MLflow and return the id of the run."""
    description = (
        f"**combine** of `{config.model.adapter or config.model.path}` and the expert "
        f"`{config.model.expert}`\n\n- store: `{config.store.uri}`\n- result: `{run.run_uri}`"
    )
    with tracked_run(config, manifest, run, job="combine", description=description) as tracker:
        tracker.log_metrics(0, {**metrics, "gate/time": fit.gate.time, "gate/type": fit.gate.type})
        return tracker.wait_for_run()
