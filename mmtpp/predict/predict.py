"""The predict job: a user's own events in, forecasts of what comes next out.

One forecast for each sequence: when the event after its last comes, as quantiles, and of which
type; and futures of several events, drawn one after the other. The model sees the newest events, as
many as fit ``window.max_tokens``; ``context`` says how many of ``events``. Runs on the driver; the
work is in Ray Data, and forecasts are written as they come.
"""

import io
import json
from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.config.fingerprint import run_name
from mmtpp.config.load import with_values
from mmtpp.config.schema import Prediction, RunConfig, Tasks
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.core.interval_forecasts import IntervalGrid
from mmtpp.core.split import split_from_path
from mmtpp.core.supervision import FollowingEvent
from mmtpp.core.tasks import check_futures
from mmtpp.data.prepare import prepare
from mmtpp.data.samples.actors import iter_samples
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.assemble_settings import AssembleSettings
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.settings import (
    assemble_settings,
    source_reader,
    store_vocabulary,
)
from mmtpp.data.sources.type_codes import AUTO
from mmtpp.evaluate.targets import writing_settings
from mmtpp.model.folder import load_model_vocabulary
from mmtpp.model.generation import WritingSettings
from mmtpp.model.loaded import LoadedModel, ModelSource
from mmtpp.model.record import Answers, check_template, recorded_answers
from mmtpp.predict.next_event import NextEvent, SeenEvents, forecast_schema
from mmtpp.predict.rejections import Rejections
from mmtpp.runtime.hardware import choose_hardware
from mmtpp.runtime.machines import data_tasks, wait_for
from mmtpp.runtime.session import start_ray
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.paths import check_bucket, join, list_source, split_file, write_bytes


def predict(config: RunConfig) -> dict[str, object]:
    """Forecast the event after the last of every sequence.

    With ``source.uri`` the events are prepared first, into ``store.uri`` or a folder of the run;
    without it the store is read as it is. The model's vocabulary tokenises them.

    Returns:
        ``forecasts``, how many, and ``forecasts_uri``, the folder of their files; ``events_read``,
        ``events_kept`` and ``events_rejected`` with ``rejected_by_cause``, as of ``prepare``; and
        the sequences whose newest event was rejected, which the column ``newest_event_rejected``
        marks, and those that have no event left and so no forecast.

    Raises:
        MmtppError: the events, the model and the settings do not fit together.
    """
    check_bucket(config.run.storage_uri)
    scored = config.model.adapter or config.model.path
    load_model_vocabulary(scored)  # says where there is no model at all
    answers = recorded_answers(scored)
    if answers is None or not {"time", "type"} & set(answers.tasks):
        raise ModelError(
            "the model was not fine-tuned to forecast",
            where=scored,
            cause="it was never asked when the next event comes, or of which type it is; run "
            "jobs/finetune.py on it",
        )
    if config.prediction.text and not {"time", "text"} <= set(answers.tasks):
        raise ConfigError(
            f"the model was asked for {', '.join(answers.tasks)}, not for time and text",
            where=scored,
            setting="prediction.text = true",
        )
    if futures := config.prediction.futures:
        check_futures(answers.tasks, where=scored, setting=f"prediction.futures = {futures}")
    check_template(config, scored, to_train=False)
    run_uri = join(config.run.storage_uri, run_name(config, "predict", store=config.store.uri))
    if not config.store.uri:
        config = _in_one_part(with_values(config, {"store.uri": join(run_uri, "store")}))
    if config.source.uri:
        if config.source.types == AUTO:  # the model's types, whatever the new events have
            config = with_values(config, {"source.types": answers.type_names})
        prepare(config)
    start_ray()
    wait_for(data_tasks(config), patience_s=config.run.wait_for_machines_s)
    manifest = load_manifest(config.store.uri)
    answers.check(manifest, where=config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    grid = answers.intervals.grid(num_bytes=config.template.time_bytes)
    asked = Tasks(**{name: float(name in answers.tasks) for name in ("time", "type")}, joint=0.0)
    settings = assemble_settings(
        config,
        manifest,
        split="all",
        supervision=FollowingEvent(asked.asked, grid.first_bytes),
    )
    # what held-out evaluation is restricted to does not concern a user's own events
    settings = replace(settings, max_sequences=0, time_from=-1e300, time_to=1e300)
    plan = make_plan(settings, vocabulary.token_ids())
    source = ModelSource(
        config.model.path,
        config.model.adapter,
        manifest.vocabulary_hash,
        choose_hardware(config).precision,
    )
    tables = iter_samples(
        config,
        plan,
        NextEventForecaster,
        (
            settings,
            source,
            answers,
            grid,
            config.prediction,
            writing_settings(config),
            config.training.seed,
        ),
        title="predict",
    )
    uri, count = join(run_uri, "forecasts"), 0
    rejections = Rejections(config.store.uri, manifest)
    marked = map(rejections.mark, tables)
    for index, table in enumerate(_in_files(marked, config.prediction.sequences_per_file)):
        name = f"part-{index:05d}.{config.prediction.format}"
        write_bytes(join(uri, name), _encode(table, config.prediction.format))
        count += len(table)
    return {
        "forecasts": count,
        "forecasts_uri": uri,
        "store_uri": config.store.uri,
        **manifest.counts(),
        **rejections.losses().report(),
        **plan.long_texts.counts(),
    }


def _in_one_part(config: RunConfig) -> RunConfig:
    """The settings for events of which none are held out; parts as given stay, where there are."""
    source = config.source
    if config.split.by == "given" and source.uri:
        suffixes, files = source_reader(source).suffixes, list_source(*split_file(source.uri))
        paths = [path for path, _ in files if path.endswith(suffixes)]
        if source.columns.split or all(map(split_from_path, paths)):
            return config  # ids of different parts may be equal
    changes = {
        "by": "hash",
        "validation_fraction": 0.0,
        "test_fraction": 0.0,
        "validation_from": "",
        "test_from": "",
    }
    return with_values(config, {f"split.{name}": value for name, value in changes.items()})


class NextEventForecaster:
    """Assembles the end of sequences and forecasts what follows: a Ray Data actor.

    Args:
        settings: what the plan was made with.
        source: of the model.
        answers: what the model was asked in training.
        grid: of the interval forecasts.
        prediction: what is wanted.
        writing: how texts are written.
        seed: of the futures, with the sequence's name.
    """

    def __init__(
        self,
        settings: AssembleSettings,
        source: ModelSource,
        answers: Answers,
        grid: IntervalGrid,
        prediction: Prediction,
        writing: WritingSettings,
        seed: int,
    ) -> None:
        loaded = LoadedModel.of(source, image_px=settings.image_px)
        self._assembler = Assembler(settings, loaded.token_ids)
        template = settings.build_template(loaded.token_ids)
        self._forecast = NextEvent(loaded, template, answers, grid, prediction, writing, seed)
        self._image_px = settings.image_px
        self._prediction = prediction
        self._schema = forecast_schema(answers, prediction)

    def __call__(self, samples: pa.Table) -> pa.Table:
        """One row a sequence."""
        assembled = self._assembler(samples)
        histories = [self._history(assembled, index) for index in range(len(assembled))]
        levels = self._prediction.quantiles
        rows = [self._forecast(each).record(levels) for each in histories]
        return pa.Table.from_pylist(rows, self._schema)

    def _history(self, assembled: pa.Table, index: int) -> SeenEvents:
        times, places = (
            assembled[f"event_{name}"][index].values.to_numpy() for name in ("time", "position")
        )
        return SeenEvents(
            assembled["sequences"][index].values[0].as_py(),
            row_from_arrow(assembled, index, image_px=self._image_px),
            int(places[-1]) + 1,
            times,
        )


def _in_files(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of ``size``, the last one shorter."""
    waiting: list[pa.Table] = []
    for table in tables:
        waiting.append(table)
        while sum(map(len, waiting)) >= size:
            whole = pa.concat_tables(waiting)
            yield whole.slice(0, size)
            waiting = [whole.slice(size)]
    if sum(map(len, waiting)):
        yield pa.concat_tables(waiting)


def _encode(table: pa.Table, kind: str) -> bytes:
    if kind == "jsonl":
        lines = (json.dumps(row, ensure_ascii=False) for row in table.to_pylist())
        return "".join(f"{line}\n" for line in lines).encode()
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    return content.getvalue()
