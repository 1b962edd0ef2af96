"""The predict job: forecast the next event of each sequence in a user's own events.

A forecast contains the time of the event after the last one, as quantiles, and its type, and
optionally futures of several events. The model sees the newest events, up to ``window.max_tokens``;
``context`` is their number, and ``events`` the number of all events. The job runs on the driver;
Ray Data does the work, and forecasts are written while later ones are still computed.
"""

from dataclasses import replace

from mmtpp.config.fingerprint import run_name
from mmtpp.config.job_checks import check_predict
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.core.representation.supervision import FollowingEvent
from mmtpp.core.representation.tasks import check_futures
from mmtpp.core.split import split_from_path
from mmtpp.data.from_config import build_sample_settings, build_source_reader
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import PreparedStore, load_store
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.sources.type_codes import AUTO
from mmtpp.inference.mixture_checks import load_mixed_expert
from mmtpp.model.backbones.registry import check_backbone
from mmtpp.model.folders.description import ModelDescription, describe_model
from mmtpp.model.folders.folder import check_vocabularies, load_model_vocabulary
from mmtpp.model.folders.record import TrainedTasks, check_template
from mmtpp.predict.forecast_files import write_forecasts
from mmtpp.predict.forecast_tables import forecast_tables
from mmtpp.predict.rejections import Rejections
from mmtpp.runtime.session import start_ray_for_data
from mmtpp.storage.manifest import Manifest
from mmtpp.storage.paths import check_bucket, join, list_source, split_file


def predict(config: RunConfig) -> dict[str, object]:
    """Forecast the event after the last event of every sequence.

    With ``source.uri`` the events are prepared first, into ``store.uri`` or a folder of the run,
    and tokenised with the model's vocabulary. Without ``source.uri`` the store is read unchanged.

    Returns:
        ``forecasts``, the number of forecasts, and ``forecasts_uri``, the folder of their files;
        ``events_read``, ``events_kept`` and ``events_rejected`` with ``rejected_by_cause``, as
        ``prepare`` reports them; ``store_uri``, the store that was read; the counts of texts that
        were shortened or omitted; the sequences whose newest event was rejected, which the column
        ``newest_event_rejected`` marks; and the sequences without any event, which have no
        forecast.

    Raises:
        MmtppError: The events, the model and the settings do not fit together.
    """
    check_predict(config)
    check_bucket(config.run.storage_uri)
    description, trained_tasks = _check_model(config)
    run_uri = join(config.run.storage_uri, run_name(config, "predict", store=config.store.uri))
    config = _prepare_events(config, trained_tasks, run_uri)
    store = _load_store(config, description)
    sample_settings = _sample_settings(config, store.manifest, description)
    start_ray_for_data(config.store.machine_labels, patience_s=config.run.wait_for_machines_s)
    forecasts = forecast_tables(description.kind, config, store, sample_settings, trained_tasks)
    rejections = Rejections(store.uri, store.manifest)
    forecasts_uri = join(run_uri, "forecasts")
    count = write_forecasts(
        map(rejections.mark, forecasts.tables), forecasts_uri, config.prediction
    )
    return {
        "forecasts": count,
        "forecasts_uri": forecasts_uri,
        "store_uri": store.uri,
        **store.manifest.counts(),
        **rejections.losses().report(),
        **forecasts.long_texts,
    }


def _check_model(config: RunConfig) -> tuple[ModelDescription, TrainedTasks]:
    """Check that the model can forecast what the settings ask for.

    Returns:
        Kind and tasks of the model.
    """
    model_uri = config.model.adapter or config.model.path
    load_model_vocabulary(model_uri)  # raises an error where there is no model
    check_backbone(config.model, config.template)
    description = describe_model(config.model.path, config.model.adapter)
    trained_tasks = description.trained_tasks
    if trained_tasks is None or not trained_tasks.can_forecast:
        raise ModelError(
            "the model was not fine-tuned to forecast",
            where=model_uri,
            cause="the model was not trained on tasks.time or tasks.type; run jobs/finetune.py on "
            "the model",
        )
    if config.prediction.generate_text and not description.trained_on("time", "text"):
        raise ConfigError(
            f"the model was trained to answer {', '.join(trained_tasks.tasks)}, not time and text",
            where=model_uri,
            setting="prediction.generate_text = true",
        )
    if futures := config.prediction.num_futures:
        check_futures(
            trained_tasks.tasks, where=model_uri, setting=f"prediction.num_futures = {futures}"
        )
    check_template(config.sample_sections, model_uri, to_train=False)
    return description, trained_tasks


def _prepare_events(config: RunConfig, trained_tasks: TrainedTasks, run_uri: str) -> RunConfig:
    """Prepare the events of ``source.uri``; return the settings with the path of the store."""
    if not config.store.uri:
        config = _without_held_out(with_values(config, {"store.uri": join(run_uri, "store")}))
    if config.source.uri:
        if config.source.types == AUTO:  # the model's types, whichever types the new events have
            config = with_values(config, {"source.types": trained_tasks.type_names})
        prepare(config)
    return config


def _load_store(config: RunConfig, description: ModelDescription) -> PreparedStore:
    """Load the store, and check that the model and an expert that is mixed with it fit."""
    store = load_store(config.store.uri)
    if description.trained_tasks is not None:
        description.trained_tasks.check(store.manifest, where=store.uri)
    check_vocabularies((config.model.path, config.model.adapter), store.vocabulary)
    if config.model.expert:
        load_mixed_expert(
            config.model, description, store.manifest, store.vocabulary, where=store.uri
        )
    return store


def _without_held_out(config: RunConfig) -> RunConfig:
    """Settings that hold out no events; a split given by the source is kept."""
    source = config.source
    if config.split.by == "given" and source.uri:
        reader, files = build_source_reader(source), list_source(*split_file(source.uri))
        paths = [path for path, _ in files if reader.reads(path)]
        if source.columns.split or all(map(split_from_path, paths)):
            return config  # sequences of different splits may have equal ids
    changes = {
        "by": "hash",
        "validation_fraction": 0.0,
        "test_fraction": 0.0,
        "validation_from": "",
        "test_from": "",
    }
    return with_values(config, {f"split.{name}": value for name, value in changes.items()})


def _sample_settings(
    config: RunConfig, manifest: Manifest, description: ModelDescription
) -> SampleSettings:
    """Settings of the samples: the newest events of each sequence, without questions.

    A language model adds its questions in ``forecast_tables``. The limits of held-out evaluation do
    not apply to a user's own events.

    Raises:
        ConfigError: The images of the store have another size than the model's template needs.
    """
    settings = build_sample_settings(
        config.sample_sections,
        manifest,
        split="all",
        supervision=FollowingEvent(()),
        reads_template=description.reads_template,
    )
    return replace(settings, time_from=None, time_to=None)
