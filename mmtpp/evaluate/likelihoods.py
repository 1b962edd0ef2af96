"""Likelihoods of held-out events, each given the true events before it (teacher forcing)."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmtpp.core.errors import DataError
from mmtpp.core.events import MAX_TYPES
from mmtpp.core.representation.tokens import Modality
from mmtpp.core.training.loss_sums import LossSums
from mmtpp.data.samples.actors import map_samples
from mmtpp.data.samples.event_span import usable_events
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.evaluate.actors.window_scorer import WindowScorer, WindowScorerSettings
from mmtpp.evaluate.baselines.code_baseline import BaselineCounts, IntervalCodeBaseline
from mmtpp.evaluate.context import EvaluationContext
from mmtpp.evaluate.evaluation_scores import EvaluationScores
from mmtpp.evaluate.scores import metric_names
from mmtpp.storage.parquet import write_table

_SEQUENCE_AND_TIME = [("sequence_id", "ascending"), ("time", "ascending")]


@dataclass(frozen=True, slots=True)
class WindowScores:
    """Likelihoods of all windows.

    Attributes:
        losses: Losses of all labels.
        num_events: Number of events that the windows predict, compressed or not.
        targets: Scores of the targets, ``window_scorer.EVENT_SCHEMA``, sorted by sequence and
            time.
    """

    losses: LossSums
    num_events: int
    targets: pa.Table

    @classmethod
    def from_windows(cls, windows: pa.Table) -> "WindowScores":
        """Merge windows, ``window_scorer.WINDOW_SCHEMA``, that may have any order."""
        lists = windows["targets"].combine_chunks()
        targets = pa.Table.from_struct_array(lists.flatten())
        order = _order_by_first_target(lists, targets)
        nll, num_tokens = (
            np.array(windows[name].to_pylist())[order].sum(axis=0) for name in ("nll", "num_tokens")
        )
        num_events = int(windows["num_events"].to_numpy().sum())
        return cls(LossSums(nll, num_tokens), num_events, targets.sort_by(_SEQUENCE_AND_TIME))


def evaluate_likelihoods(context: EvaluationContext) -> EvaluationScores:
    """Score every event of the held-out split.

    Writes ``events.parquet``.

    Raises:
        DataError: No event is a target.
    """
    plan = make_plan(context.held_out_sample_settings, context.vocabulary.token_ids())
    windows = _score_windows(context, plan)
    targets = windows.targets
    if len(targets) == 0:
        raise DataError(
            "no event is a target",
            where=context.store_uri,
            setting=f"evaluation.targets_delta = {context.evaluation.targets_delta}, "
            f"compression.delta = {context.held_out_sample_settings.compression.delta}",
        )
    training_counts = count_training_events(context.training_sample_settings)
    events_uri = context.path("events.parquet")
    write_table(events_uri, targets)
    return EvaluationScores(
        metrics={
            **loss_metrics(windows.losses, num_events=windows.num_events),
            **event_metrics(targets, context.manifest.seconds_per_unit),
            **plan.long_texts.metrics(),
        },
        baselines=baseline_metrics(targets, training_counts),
        tables={"events": len(targets), "events_uri": events_uri},
    )


def _score_windows(context: EvaluationContext, plan: Plan) -> WindowScores:
    settings = WindowScorerSettings(
        sample_settings=context.held_out_sample_settings,
        location=context.location,
        type_codes=context.manifest.occurring_types,
    )
    tables = map_samples(
        plan, WindowScorer, settings, context.actors, title="evaluate: likelihoods"
    )
    return WindowScores.from_windows(pa.concat_tables(list(tables)))


def _order_by_first_target(lists: pa.ListArray, targets: pa.Table) -> np.ndarray:
    """Order of windows by sequence and time of the first target; windows without targets are last.

    Windows arrive in any order, and the order of a sum of floats changes its last digits.

    Args:
        lists: Targets of each window.
        targets: The same targets in one table.
    """
    counts = lists.value_lengths().to_numpy(zero_copy_only=False)
    starts = pa.array(np.cumsum(counts) - counts, mask=counts == 0)
    firsts = targets.select(["sequence_id", "time"]).take(starts)
    order = pc.sort_indices(firsts, sort_keys=_SEQUENCE_AND_TIME)  # pyright: ignore[reportAttributeAccessIssue] # pyarrow defines it at import
    return order.to_numpy()


def count_training_events(settings: SampleSettings) -> BaselineCounts:
    """Count intervals and types over the training split and the time range of ``settings``."""
    reader = StoreReader(settings.store)
    counts = BaselineCounts(IntervalCodeBaseline(settings.template.time_bytes))
    for sequence in reader.sequences(reader.files()):
        span = usable_events(sequence, "train", settings.time_range)
        if span.has_targets and len(span) > 1:
            counted = sequence.events.slice(span.first + 1, span.end)
            counts.add(counted.intervals, counted.types)
    return counts


def loss_metrics(losses: LossSums, *, num_events: int) -> dict[str, float]:
    """Losses per token over all windows, in total and by modality, and the perplexity.

    The perplexity counts only tokens that carry information about events: bytes of times and types,
    and texts. Image tokens are no labels. The template's own tokens are left out because any model
    soon predicts them, so a longer template would look better. The losses per event compare
    templates and compressions that write an event in different numbers of tokens; their events are
    all events that the windows predict, compressed or not.

    Args:
        losses: Losses of all windows.
        num_events: Number of events that the windows predict.
    """
    nll, num_labels = losses.nll, losses.num_labels
    content = [Modality.TIME, Modality.TYPE, Modality.TEXT]
    content_nll = nll[content].sum()
    return {
        **losses.per_token(metric_names.LOSS_PREFIX),
        metric_names.WINDOW_NLL: float(nll.sum() / num_events),
        metric_names.CONTENT_NLL: float(content_nll / num_events),
        metric_names.PERPLEXITY: float(np.exp(content_nll / num_labels[content].sum())),
    }


def event_metrics(events: pa.Table, seconds_per_unit: float) -> dict[str, float]:
    """Means over scored events.

    The standard errors of the interval's NLL and of the accuracy treat events as independent.

    Args:
        events: ``window_scorer.EVENT_SCHEMA``.
        seconds_per_unit: Seconds in one unit of the source's times.
    """
    interval_nll = events["interval_code_nll"].to_numpy()
    is_right = events["joint_predicted_type"].to_numpy() == events["type"].to_numpy()
    count = len(events)
    mean_interval = events["interval"].to_numpy().mean()
    return {
        metric_names.EVENT_INTERVAL_NLL: float(interval_nll.mean()),
        metric_names.EVENT_INTERVAL_NLL_ERROR: float(interval_nll.std() / np.sqrt(count)),
        metric_names.EVENT_TYPE_ACCURACY: float(is_right.mean()),
        metric_names.EVENT_TYPE_ACCURACY_ERROR: float(is_right.std() / np.sqrt(count)),
        metric_names.EVENT_TYPE_NLL: float(events["joint_type_nll"].to_numpy().mean()),
        metric_names.EVENT_TEXT_NLL: float(events["text_nll"].to_numpy().mean()),
        metric_names.EVENT_MEAN_INTERVAL: float(mean_interval * seconds_per_unit),
    }


def baseline_metrics(events: pa.Table, training_counts: BaselineCounts) -> dict[str, float]:
    """The same metrics for predictions that need no model, on the same events."""
    types = events["type"].to_numpy()
    interval_nll = training_counts.interval_codes.nll(events["interval"].to_numpy())
    most_frequent_type = int(training_counts.type_counts.argmax())
    frequencies = (training_counts.type_counts + 1 / MAX_TYPES) / (training_counts.num_events + 1)
    is_last = types == events["previous_type"].to_numpy()
    return {
        metric_names.EVENT_INTERVAL_NLL: float(interval_nll.mean()),
        metric_names.EVENT_TYPE_ACCURACY_MOST_FREQUENT: float((types == most_frequent_type).mean()),
        metric_names.EVENT_TYPE_ACCURACY_LAST: float(is_last.mean()),
        metric_names.EVENT_TYPE_NLL: float(-np.log(frequencies[types]).mean()),
    }
