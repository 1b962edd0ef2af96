"""The forecasts of a fine-tuned model: every held-out event once, beside the baselines."""

import json
import logging
from dataclasses import asdict, dataclass, replace

import numpy as np
import pyarrow as pa

from mmtpp.config.schema import RunConfig, Tasks
from mmtpp.core.errors import DataError
from mmtpp.core.supervision import EveryEvent
from mmtpp.core.tasks import EVENT_TASKS
from mmtpp.data.samples.actors import iter_samples
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import Plan
from mmtpp.data.settings import assemble_settings
from mmtpp.data.store.store_reader import StoreReader
from mmtpp.evaluate.baselines.baseline_tasks import BaselineTasks
from mmtpp.evaluate.baselines.history import History
from mmtpp.evaluate.examples import read_examples
from mmtpp.evaluate.horizon import evaluate_horizon
from mmtpp.evaluate.metrics import Estimate, differences, estimate, few_sequences
from mmtpp.evaluate.report.figures import make_plots, write_figures
from mmtpp.evaluate.report.report_page import Subject, as_report
from mmtpp.evaluate.targets import TargetScorer, Writing, writing_settings
from mmtpp.model.loaded import ModelSource
from mmtpp.model.record import Answers
from mmtpp.model.vocabulary import Vocabulary
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import join, write_bytes

logger = logging.getLogger(__name__)

REPORT_FILE = "report.html"


@dataclass(frozen=True, slots=True)
class ForecastReport:
    """What the forecasts are worth.

    Attributes:
        metrics: by name; those of positions end in ``/at_BUCKET``.
        baselines: by ``baseline/metric``.
        num_targets: events forecast.
        targets_uri: table with one row a target, ``targets.TARGET_SCHEMA``.
        report_uri: the page.
        note: a warning about the confidence intervals, or "".
    """

    metrics: dict[str, float]
    baselines: dict[str, float]
    num_targets: int
    targets_uri: str
    report_uri: str
    note: str


def evaluate_forecasts(
    config: RunConfig,
    source: ModelSource,
    answers: Answers,
    manifest: Manifest,
    vocabulary: Vocabulary,
    run_uri: str,
) -> ForecastReport:
    """Forecast every target of the held-out split and compare with baselines.

    Writes ``targets.parquet``, ``metrics.json`` with confidence intervals, ``figures`` and
    ``report.html``.

    Args:
        config: of the job.
        source: of the model.
        answers: what the model was asked in training.
        manifest: of the store.
        vocabulary: of store and model.
        run_uri: where to write.

    Raises:
        ModelError: the store has another unit or other types than the model's.
        DataError: no event is a target.
    """
    answers.check(manifest, where=config.store.uri)
    grid = answers.intervals.grid(num_bytes=config.template.time_bytes)
    asked = Tasks(**{name: float(name in answers.tasks) for name in EVENT_TASKS})
    settings = assemble_settings(
        config,
        manifest,
        split=config.evaluation.split,
        supervision=EveryEvent(asked.asked, grid.first_bytes),
    )
    settings = replace(settings, packed=True)  # short sequences share a forward pass
    plan = make_plan(settings, vocabulary.token_ids())
    occurring = [code for code, count in enumerate(manifest.type_counts) if count]
    codes = sorted({*answers.type_codes, *occurring})
    tick = manifest.tick
    train = replace(assemble_settings(config, manifest, split="train"), time_from=-1e300)
    known = [each for each in read_histories(train, codes) if len(each.times) > 1]
    held_out = read_histories(replace(settings, time_from=-1e300), codes)
    # fitted while the model scores
    baselines_of = BaselineTasks(config, known, held_out, tick=tick, num_types=len(codes))
    tables = iter_samples(
        config,
        plan,
        TargetScorer,
        (settings, source, codes, grid, tick, _writing(config, plan)),
        title="evaluate: forecasts",
    )
    order = [("sequence_id", "ascending"), ("position", "ascending")]
    targets = pa.concat_tables(list(tables)).sort_by(order)
    if len(targets) == 0:
        raise DataError(
            "no event is a target",
            where=config.store.uri,
            setting=f"evaluation.targets_delta = {config.evaluation.targets_delta}",
        )
    targets_uri = join(run_uri, "targets.parquet")
    write_table(targets_uri, targets)
    of_baselines = baselines_of.targets(targets)
    seconds, seed = manifest.seconds_per_unit, config.training.seed
    estimates = estimate(targets, seconds_per_unit=seconds, seed=seed)
    baselines = {
        name: estimate(table, seconds_per_unit=seconds, seed=seed)
        for name, table in of_baselines.items()
    }
    if config.evaluation.futures:
        of_model, of_past = evaluate_horizon(
            config, source, answers, manifest, vocabulary, held_out, codes, run_uri
        )
        estimates |= of_model
        baselines["repeat"] = of_past
    tree: dict[str, object] = {"model": _tree(estimates)}
    tree |= {name: _tree(each) for name, each in baselines.items()}
    if note := few_sequences(len(targets["sequence_id"].unique())):
        logger.warning("%s", note)
        tree["note"] = note
    write_bytes(join(run_uri, "metrics.json"), json.dumps(tree, indent=2).encode())
    against = {
        name: differences(targets, table, seconds_per_unit=seconds, seed=seed)
        for name, table in of_baselines.items()
    }
    subject = Subject(
        run_uri.rpartition("/")[2],
        {
            "model": config.model.path,
            **({"adapter": config.model.adapter} if config.model.adapter else {}),
            "store": f"{config.store.uri}, {manifest.fingerprint[:16]}",
            "split": f"{config.evaluation.split}, by {manifest.split_by}",
            "compression": f"{config.compression.strategy}, Delta {config.compression.delta:g}",
        },
        tuple(manifest.type_names),
        seconds,
        manifest.times_are_dates,
    )
    plots = make_plots(targets, estimates, seconds_per_unit=seconds, names=subject.names())
    write_figures(join(run_uri, "figures"), plots)
    examples = read_examples(config, settings, source, plan, targets)
    page = as_report(subject, targets, {"model": estimates, **baselines}, plots, examples, against)
    write_bytes(join(run_uri, REPORT_FILE), page.encode("utf-8", "backslashreplace"))
    return ForecastReport(
        metrics={**_values(estimates), **plan.long_texts.figures("targets_")},
        baselines={
            f"{name}/{metric}": value
            for name, each in baselines.items()
            for metric, value in _values(each).items()
            if "/at_" not in metric
        },
        num_targets=len(targets),
        targets_uri=targets_uri,
        report_uri=join(run_uri, REPORT_FILE),
        note=note,
    )


def _writing(config: RunConfig, plan: Plan) -> Writing:
    """Which texts are written: a share of the targets that comes to about the wanted number."""
    first, end = (plan.windows[name].to_numpy() for name in ("first_scored", "end"))
    share = min(1.0, config.evaluation.written_texts / max(1, int((end - first).sum())))
    return Writing(writing_settings(config), share, config.training.seed)


def read_histories(settings: AssembleSettings, codes: list[int]) -> list[History]:
    """Times and types of the sequences of a split, in its time range.

    A sequence that is cut in time begins with its past, and ends where the split does.
    """
    reader = StoreReader(settings.store)
    place_of = np.zeros(max(codes) + 1, dtype=np.int64)
    place_of[codes] = np.arange(len(codes))
    histories: list[History] = []
    for sequence in reader.sequences(reader.files()):
        first, last = settings.time_range.event_range(sequence.times)
        start, end = sequence.span(settings.split)
        last = min(last, end)
        if start < last and last - first > 1:
            types, times = place_of[sequence.events.types[first:last]], sequence.times[first:last]
            histories.append(History(sequence.sequence_id, times, types, settings.store.tick))
    return histories


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _tree(estimates: dict[str, Estimate]) -> dict[str, object]:
    # JSON has no infinity, which is the NLL of a baseline that gives an event no probability
    return {
        name: {key: _finite(value) for key, value in asdict(each).items()}
        for name, each in estimates.items()
    }


def _values(estimates: dict[str, Estimate]) -> dict[str, float]:
    infinite = [name for name, each in estimates.items() if not np.isfinite(each.value)]
    if infinite:
        logger.warning("not finite, and so not among the metrics: %s", ", ".join(infinite))
    return {name: each.value for name, each in estimates.items() if name not in infinite}
