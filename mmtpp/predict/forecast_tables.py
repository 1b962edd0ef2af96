"""Forecasts of the event after the last one, as tables, for each kind of model."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pyarrow as pa

from mmtpp.config.schema import RunConfig
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.supervision import FollowingEvent
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.data.samples.actors import ActorPool, map_samples
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.inference.model_sections import build_generation_settings, build_model_location
from mmtpp.model.folders.record import TrainedTasks
from mmtpp.model.loaded_model import ModelLocation
from mmtpp.predict.density_next_event import DensityForecastSettings
from mmtpp.predict.expert_tables import expert_tables
from mmtpp.predict.next_event import NextEventSettings
from mmtpp.predict.next_event_actor import NextEventActor, NextEventActorSettings
from mmtpp.predict.soft_next_event import SoftNextEventActor, SoftNextEventActorSettings
from mmtpp.runtime.hardware import Hardware, choose_hardware
from mmtpp.soft.soft_settings import with_memory


@dataclass(frozen=True, slots=True)
class ForecastTables:
    """Forecasts of the sequences of a store.

    Attributes:
        tables: Tables of ``forecast_result.forecast_schema``; each is computed when it is read.
        long_texts: Counts of texts that the model cannot read whole, by name.
    """

    tables: Iterator[pa.Table]
    long_texts: dict[str, int] = field(default_factory=dict)


def forecast_tables(
    kind: ModelKind,
    config: RunConfig,
    store: PreparedStore,
    sample_settings: SampleSettings,
    trained_tasks: TrainedTasks,
) -> ForecastTables:
    """Forecast the sequences of a store.

    Args:
        kind: Kind of the model.
        config: The whole configuration.
        store: The store.
        sample_settings: Settings of the samples, one for each sequence, without questions.
        trained_tasks: Tasks that the model was trained on.
    """
    return PREDICTED_KINDS[kind](config, store, sample_settings, trained_tasks)


def _expert_tables(
    config: RunConfig,
    _store: PreparedStore,
    sample_settings: SampleSettings,
    trained_tasks: TrainedTasks,
) -> ForecastTables:
    """Forecasts of a temporal expert, which reads no whole texts."""
    settings = DensityForecastSettings(
        trained_tasks=trained_tasks, prediction=config.prediction, seed=config.training.seed
    )
    tables = expert_tables(
        config.model.path, sample_settings, settings, config.store.machine_labels
    )
    return ForecastTables(tables)


def _soft_tables(
    config: RunConfig,
    store: PreparedStore,
    sample_settings: SampleSettings,
    trained_tasks: TrainedTasks,
) -> ForecastTables:
    """Forecasts of a soft model."""
    hardware, location = _hardware_and_location(config, store)
    sample_settings = with_memory(sample_settings, location.scored_uri)
    forecast = DensityForecastSettings(
        trained_tasks=trained_tasks, prediction=config.prediction, seed=config.training.seed
    )
    settings = SoftNextEventActorSettings(
        sample_settings=sample_settings, location=location, forecast=forecast
    )
    plan = make_plan(sample_settings, store.vocabulary.token_ids())
    pool = _actor_pool(config, hardware)
    tables = map_samples(plan, SoftNextEventActor, settings, pool, title="predict")
    return ForecastTables(tables, plan.long_texts.counts())


def _language_model_tables(
    config: RunConfig,
    store: PreparedStore,
    sample_settings: SampleSettings,
    trained_tasks: TrainedTasks,
) -> ForecastTables:
    """Forecasts of a language model."""
    hardware, location = _hardware_and_location(config, store)
    grid = trained_tasks.interval_range.grid(num_bytes=config.template.time_bytes)
    tasks = tuple(name for name in ("time", "type") if name in trained_tasks.tasks)
    forecast = NextEventSettings(
        trained_tasks=trained_tasks,
        grid=grid,
        prediction=config.prediction,
        generation=build_generation_settings(config.generation),
        seed=config.training.seed,
    )
    settings = NextEventActorSettings(
        sample_settings=replace(
            sample_settings, supervision=FollowingEvent(tasks, grid.first_bytes)
        ),
        location=location,
        forecast=forecast,
    )
    plan = make_plan(settings.sample_settings, store.vocabulary.token_ids())
    pool = _actor_pool(config, hardware)
    tables = map_samples(plan, NextEventActor, settings, pool, title="predict")
    return ForecastTables(tables, plan.long_texts.counts())


def _hardware_and_location(
    config: RunConfig, store: PreparedStore
) -> tuple[Hardware, ModelLocation]:
    """Device and precision of the model, and its location."""
    hardware = choose_hardware(config.training, config.model.precision)
    location = build_model_location(
        config.model, store.manifest.vocabulary_hash, precision=hardware.precision
    )
    return hardware, location


def _actor_pool(config: RunConfig, hardware: Hardware) -> ActorPool:
    """Number and resources of the actors that hold the model."""
    return ActorPool.from_settings(
        config.training,
        hardware,
        windows_per_batch=config.evaluation.windows_per_batch,
        patience_s=config.run.wait_for_machines_s,
    )


PREDICTED_KINDS: dict[
    ModelKind, Callable[[RunConfig, PreparedStore, SampleSettings, TrainedTasks], ForecastTables]
] = {
    ModelKind.EXPERT: _expert_tables,
    ModelKind.SOFT: _soft_tables,
    ModelKind.LANGUAGE_MODEL: _language_model_tables,
}
