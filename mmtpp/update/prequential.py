"""The prequential job: every period is first forecast, then learned, in several ways.

An expert is trained on the first periods. Each later period is forecast with what was learned
before it; then each strategy learns from its training events in its own way. Events of all splits
are forecast, because none of them was learned before. The past of the test sequences, which are
never learned from, shows at the end what each strategy has forgotten.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import process_time
from typing import cast

import numpy as np

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, DataError
from mmtpp.core.split import BY_TIME
from mmtpp.core.times.calendar_periods import period_starts
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import PreparedStore, load_store
from mmtpp.evaluate.evaluation_start import identify_evaluation
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.new_events import targets_between
from mmtpp.expert.next_events import ScoredSequence
from mmtpp.expert.read_sequences import SequenceSettings, read_sequences
from mmtpp.runtime.block_tasks import map_blocks
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket
from mmtpp.track.tracked_run import tracked_run
from mmtpp.track.tracker import RunIdentity
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.launch.expert_job import build_inputs
from mmtpp.update.prequential_results import (
    PeriodScores,
    StrategyResult,
    find_strategy_result,
    save_result,
    save_summary,
    summarise,
)
from mmtpp.update.sequence_losses import sequence_losses
from mmtpp.update.strategies import Learning

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Timeline:
    """The events of all splits, and the periods that they are divided into.

    Attributes:
        learning: Trains experts on the training and the validation sequences.
        test: Test sequences, whole.
        edges: Starts of the periods, and the end of the last one, in the source's unit. The first
            period is what the initial expert learns from.
    """

    learning: Learning
    test: list[ScoredSequence]
    edges: tuple[float, ...]

    @property
    def periods(self) -> Iterator[tuple[float, float]]:
        """Start and end of each period that is forecast."""
        return pairwise(self.edges[1:])

    def score(self, expert: Expert, start: float, end: float) -> PeriodScores:
        """Forecast all events of a period."""
        sequences = [*self.learning.training, *self.learning.validation, *self.test]
        return PeriodScores(start, sequence_losses(expert, targets_between(sequences, start, end)))

    def score_past(self, expert: Expert) -> PeriodScores:
        """Forecast the test events of the first period."""
        past = targets_between(self.test, None, self.edges[1])
        return PeriodScores(self.edges[0], sequence_losses(expert, past))


def prequential(config: RunConfig) -> dict[str, object]:
    """Compare ways to keep an expert up to date.

    Args:
        config: The whole configuration.

    Returns:
        ``run_id``, ``run_name``, ``metrics``, ``tracking_uri`` and ``results_uri``, the folder of
        the tables. Strategies that an earlier run finished are not computed again.

    Raises:
        ConfigError: The period is one of the calendar but the times are no dates, the store is cut
            in time, or there are too few periods.
        MmtppError: The store and the settings do not fit together.
    """
    check_bucket(config.run.storage_uri)
    store = load_store(config.store.uri)
    _check_store(store.manifest, config.prequential.period, where=store.uri)
    run = identify_evaluation(config, "prequential", store)
    start_ray_for_data(config.store.machine_labels, patience_s=config.run.wait_for_machines_s)
    timeline = read_timeline(config, store, run)
    results = _run_strategies(config, timeline, run)
    summary = summarise(
        results,
        seconds_per_unit=store.manifest.seconds_per_unit
        if store.manifest.times_are_dates
        else None,
        seed=config.training.seed,
    )
    save_summary(summary, run.run_uri)
    with tracked_run(
        config, store.manifest, run, job="prequential", description=_describe(config, run)
    ) as tracker:
        for step, metrics in enumerate(summary.metrics_by_period):
            tracker.log_metrics(step, metrics)
        tracker.log_metrics(0, summary.metrics)
        tracker.log_text("prequential.md", summary.markdown)
        run_id = tracker.wait_for_run()
    return {
        "run_id": run_id,
        "run_name": run.run_name,
        "metrics": summary.metrics,
        "results_uri": run.run_uri,
        "tracking_uri": config.tracking.uri,
    }


def _check_store(manifest: Manifest, period: str | float, *, where: str) -> None:
    if isinstance(period, str) and not manifest.times_are_dates:
        raise ConfigError(
            f"there is no {period} in times that are no dates",
            where=where,
            cause="a period can also be a number in the source's unit",
            setting=f"prequential.period = {period}",
        )
    if manifest.split_by == BY_TIME:
        raise ConfigError(
            "a prequential evaluation needs whole sequences in each split",
            where=where,
            cause="every sequence of the store is cut in time, so no past is held out",
            setting="split.by = time; prepare the store with hash or given",
        )


def read_timeline(config: RunConfig, store: PreparedStore, run: RunIdentity) -> Timeline:
    """Read the events of all splits, and divide them into periods.

    Args:
        config: The whole configuration.
        store: The store.
        run: Name and folder of the job.

    Raises:
        ConfigError: There are too few periods.
        DataError: No training sequence has two events.
    """
    inputs = build_inputs(config, store, run, reports_validation=False)
    test_settings = SequenceSettings(
        build_sample_settings(
            config.sample_sections, store.manifest, split="test", reads_template=False
        ),
        inputs.trained_tasks.type_codes,
        inputs.train_sequence_settings.texts,
        inputs.train_sequence_settings.reads_images,
    )
    validation = inputs.validation_sequence_settings
    learning = Learning(
        inputs=inputs,
        expert=config.expert,
        update=config.update,
        training=read_sequences(inputs.train_sequence_settings),
        validation=read_sequences(validation) if validation is not None else (),
    )
    edges = _edges(config, inputs, learning.training, where=store.uri)
    test = read_sequences(test_settings)
    # validation and test events after the last training event are forecast in the last period
    newest = max(
        float(sequence.past.times[-1])
        for sequence in (*learning.training, *learning.validation, *test)
    )
    last = max(edges[-1], float(np.nextafter(newest, np.inf)))
    return Timeline(learning, test, (*edges[:-1], last))


def _edges(
    config: RunConfig, inputs: ExpertInputs, training: Sequence[ScoredSequence], *, where: str
) -> tuple[float, ...]:
    """Starts of the periods with training events, and the end of the last one.

    The first edge is the start of the events that are learned before the first forecast.
    """
    settings = config.prequential
    if not training:
        raise DataError("no training sequence has two events", where=where)
    times = np.concatenate([sequence.past.times[sequence.is_target] for sequence in training])
    starts = _period_starts(
        float(times.min()),
        float(times.max()),
        settings.period,
        seconds_per_unit=inputs.trained_tasks.seconds_per_unit,
        time_zone=config.expert.time_zone,
    )
    edges = [starts[0], *starts[settings.first_periods :]]
    if len(edges) <= 2:  # the end of the first period is the end of all
        raise ConfigError(
            f"the training events span {len(starts) - 1} periods, of which none is forecast",
            where=where,
            cause="the periods are too long, or too many are learned first",
            setting=f"prequential.period = {settings.period}, prequential.first_periods = "
            f"{settings.first_periods}",
        )
    return tuple(edges)


def _period_starts(
    first: float, last: float, period: str | float, *, seconds_per_unit: float, time_zone: str
) -> list[float]:
    """Starts of the periods that cover a range of times, and the end of the last one."""
    if not isinstance(period, str):
        num_periods = math.floor((last - first) / period) + 1
        return [first + index * period for index in range(num_periods + 1)]
    starts_s = period_starts(
        first * seconds_per_unit, last * seconds_per_unit, period, time_zone=time_zone
    )
    return [start_s / seconds_per_unit for start_s in starts_s]


def _run_strategies(
    config: RunConfig, timeline: Timeline, run: RunIdentity
) -> list[StrategyResult]:
    """Results of all strategies, of which finished ones are read; each is one Ray task."""
    names = config.prequential.strategies
    finished = {name: find_strategy_result(run.run_uri, name) for name in names}
    missing = [name for name in names if finished[name] is None]
    if missing:
        labels = config.store.machine_labels
        [initial] = map_blocks(
            train_initial, timeline, [None], machine_labels=labels, title="initial expert"
        )
        computed = map_blocks(
            _run_and_save,
            (timeline, initial),
            missing,
            run.run_uri,
            machine_labels=labels,
            title="prequential",
        )
        finished |= {result.name: result for result in computed}
    return [cast(StrategyResult, finished[name]) for name in names]


def _run_and_save(shared: tuple[Timeline, Expert], name: str, run_uri: str) -> StrategyResult:
    result = run_strategy(shared, name)
    save_result(result, run_uri)
    return result


def train_initial(timeline: Timeline, _: None = None) -> Expert:
    """Train an expert on the events before the first forecast."""
    return timeline.learning.train(timeline.edges[1])


def run_strategy(shared: tuple[Timeline, Expert], name: str) -> StrategyResult:
    """Forecast and learn all periods in one way.

    Args:
        shared: The timeline, and the expert that was trained on its first period.
        name: One of ``prequential.strategies``.
    """
    timeline, expert = shared
    scores: list[PeriodScores] = []
    seconds: list[float] = []
    for start, end in timeline.periods:
        scores.append(timeline.score(expert, start, end))
        started = process_time()
        expert = timeline.learning.learn(name, expert, start, end)
        seconds.append(process_time() - started)
    return StrategyResult(name, scores, timeline.score_past(expert), seconds)


def _describe(config: RunConfig, run: RunIdentity) -> str:
    settings = config.prequential
    return (
        f"**prequential** evaluation of temporal experts: {', '.join(settings.strategies)}\n\n"
        f"- store: `{config.store.uri}`, by {settings.period}\n- results: `{run.run_uri}`"
    )
