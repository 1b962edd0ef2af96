"""Likelihoods of held-out events, teacher-forced: each event given the true ones before it."""

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import RunConfig
from mmtpp.core.loss_sums import LossSums
from mmtpp.core.tokens import Modality
from mmtpp.data.samples.actors import iter_samples
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.plan import Plan
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.evaluate.baselines.byte_marginal import ByteMarginal, TrainingStatistics
from mmtpp.evaluate.score import WindowScorer
from mmtpp.model.loaded import ModelSource
from mmtpp.storage.manifest import Manifest


def score_windows(
    config: RunConfig,
    settings: AssembleSettings,
    source: ModelSource,
    manifest: Manifest,
    plan: Plan,
) -> pa.Table:
    """Score all windows of a plan, ``score.EVENT_SCHEMA``, sorted by sequence and time."""
    codes = [code for code, count in enumerate(manifest.type_counts) if count]
    tables = iter_samples(
        config, plan, WindowScorer, (settings, source, codes), title="evaluate: likelihoods"
    )
    return pa.concat_tables(list(tables)).sort_by(
        [("sequence_id", "ascending"), ("time", "ascending")]
    )


def training_statistics(settings: AssembleSettings) -> TrainingStatistics:
    """Counts of intervals and types over the training split and time range of ``settings``."""
    reader = StoreReader(settings.store)
    statistics = TrainingStatistics(ByteMarginal(settings.template.time_bytes))
    for sequence in reader.sequences(reader.files()):
        first, last = settings.time_range.event_range(sequence.times)
        start, end = sequence.span("train")
        last = min(last, end)
        if start < end and last - first > 1:
            scored = sequence.events.slice(first + 1, last)
            statistics.add(scored.intervals, scored.types)
    return statistics


def loss_metrics(windows: pa.Table) -> dict[str, float]:
    """Losses per token over all windows, by modality, and the perplexities.

    A perplexity counts what tells of events alone: bytes of times, types and texts. Image tokens
    are no labels, and the template's own tokens, which any model soon knows, would make a longer
    template look better. Per event it compares templates and compressions that write an event in
    different numbers of tokens: the events are those the windows predict, compressed or not.
    """
    nll = np.array(windows["window_nll"].drop_null().to_pylist()).sum(axis=0)
    tokens = np.array(windows["window_tokens"].drop_null().to_pylist()).sum(axis=0)
    num_events = float(np.sum(windows["window_events"].drop_null().to_numpy()))
    content = [Modality.TIME, Modality.TYPE, Modality.TEXT]
    metrics = LossSums(nll, tokens).per_token("test")
    metrics["test/nll_nats_per_event"] = float(nll.sum() / num_events)
    metrics["test/content_nll_nats_per_event"] = float(nll[content].sum() / num_events)
    metrics["test/perplexity_per_token"] = float(np.exp(nll[content].sum() / tokens[content].sum()))
    return metrics


def summarize(events: pa.Table, seconds_per_unit: float) -> dict[str, float]:
    """Headline metrics of a table of scored events.

    Args:
        events: ``score.EVENT_SCHEMA``.
        seconds_per_unit: to report intervals in seconds.

    Returns:
        Means with the standard errors of the interval NLL and the accuracy (events taken as
        independent).
    """
    interval_nll = events["interval_code_nll"].to_numpy()
    right = events["joint_predicted_type"].to_numpy() == events["type"].to_numpy()
    count = len(events)
    return {
        "interval_nll_nats_per_event": float(interval_nll.mean()),
        "interval_nll_standard_error": float(interval_nll.std() / np.sqrt(count)),
        "type_accuracy": float(right.mean()),
        "type_accuracy_standard_error": float(right.std() / np.sqrt(count)),
        "type_nll_nats_per_event": float(events["joint_type_nll"].to_numpy().mean()),
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
