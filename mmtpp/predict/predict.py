"""The predict job: forecast the next event of each sequence in a user's own events.

A forecast contains the time of the event after the last one, as quantiles, and its type, and
optionally futures of several events. The model sees the newest events, up to ``window.max_tokens``;
``context`` is their number, and ``events`` the number of all events. The job runs on the driver;
Ray Data does the work, and forecasts are written while later ones are still computed.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.config.fingerprint import run_name
from mmtpp.config.job_checks import check_predict
from mmtpp.config.load import with_values
from mmtpp.config.schema import PredictionSection, RunConfig
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalGrid
from mmtpp.core.history.past_events import PastEvents
from mmtpp.core.representation.supervision import FollowingEvent
from mmtpp.core.representation.tasks import check_futures
from mmtpp.core.split import split_from_path
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.actors import ActorPool, map_samples
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.settings import (
    sample_settings,
    source_reader,
    store_vocabulary,
)
from mmtpp.data.sources.type_codes import AUTO
from mmtpp.evaluate.actors.gated_targets import positioned_events
from mmtpp.evaluate.actors.model_actor import AssembledRow, ModelActor, ModelActorSettings
from mmtpp.evaluate.check_model import check_expert, check_mixture, warn_of_other_model
from mmtpp.evaluate.context import generation_settings
from mmtpp.expert.expert_folder import is_expert
from mmtpp.expert.gated_expert import GatedExpert, load_gated_expert
from mmtpp.expert.stored_past import StoredPast
from mmtpp.model.backbones.registry import check_backbone
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.loaded_model import ModelSource
from mmtpp.model.record import TrainedTasks, check_template, load_trained_tasks
from mmtpp.model.vocabulary import Vocabulary, check_same_vocabulary
from mmtpp.predict.expert_next_event import ExpertForecastSettings
from mmtpp.predict.expert_tables import expert_tables
from mmtpp.predict.next_event import NextEvent, NextEventSettings, SeenEvents, forecast_schema
from mmtpp.predict.rejections import Rejections
from mmtpp.runtime.hardware import choose_hardware
from mmtpp.runtime.machines import data_task_demand, wait_for_machines
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.paths import check_bucket, join, list_source, split_file, write_bytes


def predict(config: RunConfig) -> dict[str, object]:
    """Forecast the event after the last event of every sequence.

    With ``source.uri`` the events are prepared first, into ``store.uri`` or a folder of the run,
    and tokenised with the model's vocabulary. Without ``source.uri`` the store is read unchanged.

    Returns:
        ``forecasts``, the number of forecasts, and ``forecasts_uri``, the folder of their files;
        ``events_read``, ``events_kept`` and ``events_rejected`` with ``rejected_by_cause``, as
        ``prepare`` reports them; the sequences whose newest event was rejected, which the column
        ``newest_event_rejected`` marks; and the sequences without any event, which have no
        forecast.

    Raises:
        MmtppError: The events, the model and the settings do not fit together.
    """
    check_predict(config)
    check_bucket(config.run.storage_uri)
    trained_tasks = _check_model(config)
    run_uri = join(config.run.storage_uri, run_name(config, "predict", store=config.store.uri))
    config = _prepare_events(config, trained_tasks, run_uri)
    manifest, vocabulary = _load_store(config, trained_tasks)
    grid = trained_tasks.intervals.grid(num_bytes=config.template.time_bytes)
    samples = _sample_settings(config, manifest, trained_tasks, grid)
    start_ray()
    wait_for_machines(
        data_task_demand(config.store.machine_labels), patience_s=config.run.wait_for_machines_s
    )
    if is_expert(config.model.path):
        tables, long_texts = _expert_tables(config, samples, trained_tasks), {}
    else:
        forecast = _next_event_settings(config, trained_tasks, grid)
        tables, long_texts = _model_tables(config, manifest, vocabulary, samples, forecast)
    rejections = Rejections(config.store.uri, manifest)
    forecasts_uri = join(run_uri, "forecasts")
    count = _write_forecasts(map(rejections.mark, tables), forecasts_uri, config.prediction)
    return {
        "forecasts": count,
        "forecasts_uri": forecasts_uri,
        "store_uri": config.store.uri,
        **manifest.counts(),
        **rejections.losses().report(),
        **long_texts,
    }


def _expert_tables(
    config: RunConfig, samples: SampleSettings, trained_tasks: TrainedTasks
) -> Iterator[pa.Table]:
    """Forecasts of a temporal expert."""
    settings = ExpertForecastSettings(
        trained_tasks=trained_tasks, prediction=config.prediction, seed=config.training.seed
    )
    return expert_tables(config.model.path, samples, settings, config.store.machine_labels)


def _next_event_settings(
    config: RunConfig, trained_tasks: TrainedTasks, grid: IntervalGrid
) -> NextEventSettings:
    return NextEventSettings(
        trained_tasks=trained_tasks,
        grid=grid,
        prediction=config.prediction,
        generation=generation_settings(config.generation),
        seed=config.training.seed,
    )


def _model_tables(
    config: RunConfig,
    manifest: Manifest,
    vocabulary: Vocabulary,
    samples: SampleSettings,
    forecast: NextEventSettings,
) -> tuple[Iterator[pa.Table], dict[str, int]]:
    """Forecasts of a language model, and the counts of texts that it cannot read whole."""
    hardware = choose_hardware(config.training, config.model.precision)
    model = ModelSource(
        config.model.path,
        config.model.adapter,
        manifest.vocabulary_hash,
        hardware.precision,
        config.model.expert,
    )
    settings = NextEventForecasterSettings(samples=samples, model=model, forecast=forecast)
    plan = make_plan(settings.samples, vocabulary.token_ids())
    pool = ActorPool.from_settings(
        config.training,
        hardware,
        windows_per_batch=config.evaluation.windows_per_batch,
        patience_s=config.run.wait_for_machines_s,
    )
    tables = map_samples(plan, NextEventForecaster, settings, pool, title="predict")
    return tables, plan.long_texts.counts()


def _check_model(config: RunConfig) -> TrainedTasks:
    """Check that the model can forecast what the settings ask for.

    Returns:
        Tasks that the model was trained on.
    """
    scored = config.model.adapter or config.model.path
    load_model_vocabulary(scored)  # raises an error where there is no model
    check_backbone(config.model, config.template)
    trained_tasks = load_trained_tasks(scored)
    if trained_tasks is None or not {"time", "type"} & set(trained_tasks.tasks):
        raise ModelError(
            "the model was not fine-tuned to forecast",
            where=scored,
            cause="the model was not trained on tasks.time or tasks.type; run jobs/finetune.py on "
            "the model",
        )
    if config.prediction.generate_text and not {"time", "text"} <= set(trained_tasks.tasks):
        raise ConfigError(
            f"the model was trained to answer {', '.join(trained_tasks.tasks)}, not time and text",
            where=scored,
            setting="prediction.generate_text = true",
        )
    if futures := config.prediction.num_futures:
        check_futures(
            trained_tasks.tasks, where=scored, setting=f"prediction.num_futures = {futures}"
        )
    check_template(config.sample_sections, scored, to_train=False)
    return trained_tasks


def _prepare_events(config: RunConfig, trained_tasks: TrainedTasks, run_uri: str) -> RunConfig:
    """Prepare the events of ``source.uri``; return the settings with the path of the store."""
    if not config.store.uri:
        config = _in_one_part(with_values(config, {"store.uri": join(run_uri, "store")}))
    if config.source.uri:
        if config.source.types == AUTO:  # the model's types, whichever types the new events have
            config = with_values(config, {"source.types": trained_tasks.type_names})
        prepare(config)
    return config


def _load_store(config: RunConfig, trained_tasks: TrainedTasks) -> tuple[Manifest, Vocabulary]:
    """Load the store's manifest and vocabulary, and check that the model fits them."""
    manifest = load_manifest(config.store.uri)
    trained_tasks.check(manifest, where=config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    for uri in filter(None, (config.model.path, config.model.adapter)):
        check_same_vocabulary(load_model_vocabulary(uri).hash, vocabulary.hash, where=uri)
    if config.model.expert:
        check_mixture(config.model, trained_tasks)
        warn_of_other_model(load_gated_expert(config.model.expert), config.model)
        check_expert(config.model.expert, manifest, vocabulary, where=config.store.uri)
    return manifest, vocabulary


def _in_one_part(config: RunConfig) -> RunConfig:
    """Settings that hold out no events; a split given by the source is kept."""
    source = config.source
    if config.split.by == "given" and source.uri:
        suffixes, files = source_reader(source).suffixes, list_source(*split_file(source.uri))
        paths = [path for path, _ in files if path.endswith(suffixes)]
        if source.columns.split or all(map(split_from_path, paths)):
            return config  # sequences of different parts may have equal ids
    changes = {
        "by": "hash",
        "validation_fraction": 0.0,
        "test_fraction": 0.0,
        "validation_from": "",
        "test_from": "",
    }
    return with_values(config, {f"split.{name}": value for name, value in changes.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class NextEventForecasterSettings(ModelActorSettings):
    """Settings of ``NextEventForecaster``.

    Attributes:
        forecast: Settings of the forecasts.
    """

    forecast: NextEventSettings


def _sample_settings(
    config: RunConfig, manifest: Manifest, trained_tasks: TrainedTasks, grid: IntervalGrid
) -> SampleSettings:
    """Settings of the samples: a question about the event after the last one of each sequence.

    The limits of held-out evaluation do not apply to a user's own events.

    Raises:
        ConfigError: The images of the store have another size than the template needs.
    """
    tasks = tuple(name for name in ("time", "type") if name in trained_tasks.tasks)
    settings = sample_settings(
        config.sample_sections,
        manifest,
        split="all",
        supervision=FollowingEvent(tasks, grid.first_bytes),
    )
    return replace(settings, max_sequences=0, time_from=None, time_to=None)


class NextEventForecaster(ModelActor):
    """Forecasts the event after the last event of sequences.

    Args:
        settings: Settings of the actor.
    """

    def __init__(self, settings: NextEventForecasterSettings) -> None:
        super().__init__(settings)
        template = settings.samples.build_template(self.loaded.token_ids)
        self._past: StoredPast | None = None
        gated: GatedExpert | None = None
        if settings.model.expert_uri:
            gated = load_gated_expert(settings.model.expert_uri)
            self._past = StoredPast(gated.expert, gated.type_codes, settings.samples.store)
        self._forecast = NextEvent(self.loaded, template, settings.forecast, gated)
        self._prediction = settings.forecast.prediction
        self._schema = forecast_schema(settings.forecast.trained_tasks, self._prediction)

    def process(self, sample: AssembledRow) -> pa.Table:
        """Forecast one sequence, one row of ``forecast_schema``."""
        past: PastEvents | None = None
        if self._past is not None:
            [following] = positioned_events(sample, np.array([len(sample.row.event_type)]))
            past = self._past.past(following)
        seen = SeenEvents(
            sample.sequence_ids[0].as_py(),
            sample.row,
            int(sample.event_values("position")[-1]) + 1,
            sample.event_values("time"),
            past,
        )
        record = self._forecast(seen).record(self._prediction.quantiles)
        return pa.Table.from_pylist([record], self._schema)


def _write_forecasts(tables: Iterator[pa.Table], uri: str, prediction: PredictionSection) -> int:
    """Write forecasts to the files of a folder and return their number."""
    count = 0
    for index, table in enumerate(_in_files(tables, prediction.sequences_per_file)):
        name = f"part-{index:05d}.{prediction.format}"
        write_bytes(join(uri, name), _encode(table, prediction.format))
        count += len(table)
    return count


def _in_files(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """Regroup rows into tables of ``size`` rows; the last table may be shorter."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        while sum(map(len, pending)) >= size:
            joined = pa.concat_tables(pending)
            yield joined.slice(0, size)
            pending = [joined.slice(size)]
    if sum(map(len, pending)):
        yield pa.concat_tables(pending)


def _encode(table: pa.Table, file_format: str) -> bytes:
    """The content of one file of forecasts."""
    if file_format == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
        return "".join(f"{line}\n" for line in lines).encode()
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()
