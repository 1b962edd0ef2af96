"""A fine-tuned model in this process: takes one sequence, returns a forecast of its next event."""

import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from mmtpp.api.language_forecaster import LanguageForecaster
from mmtpp.api.past_reader import read_past
from mmtpp.api.sequences import Sequences, load_sequences
from mmtpp.api.soft_history import read_soft_history
from mmtpp.api.values import check_lengths, to_images, to_texts, to_times, to_types
from mmtpp.config.load import with_values
from mmtpp.config.schema import ModelSection, PredictionSection, RunConfig
from mmtpp.core.errors import ConfigError, DataError, ModelError
from mmtpp.core.events import MAX_TYPES, EventSequence
from mmtpp.core.model_kind import ModelKind
from mmtpp.core.representation.tasks import check_futures
from mmtpp.data.from_config import check_calendar
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.expert.gated_expert import GatedExpert
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.inference.mixture_checks import load_mixed_expert
from mmtpp.inference.model_sections import build_model_location
from mmtpp.model.backbones.registry import check_backbone
from mmtpp.model.folders.adapter import base_of_adapter
from mmtpp.model.folders.description import describe_model
from mmtpp.model.folders.folder import load_model_vocabulary, local_folder
from mmtpp.model.folders.record import TrainedTasks, load_recorded_settings
from mmtpp.model.loaded_model import LoadedModel
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.predict.density_next_event import (
    DensityForecastSettings,
    Origin,
    forecast_after,
    forecast_next_event,
)
from mmtpp.predict.forecast_result import Forecast
from mmtpp.soft.soft_folder import load_soft_distributions
from mmtpp.soft.soft_rollout import SoftDistributions
from mmtpp.storage.model_folder import check_model_folder
from mmtpp.storage.paths import as_uri

logger = logging.getLogger(__name__)

_FORECAST_TASKS = ("time", "type")


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A trained model that forecasts.

    A language model of ``jobs/finetune.py``, or a temporal expert or a model of soft tokens of
    ``jobs/pretrain.py``. ``from_pretrained`` loads one. All times are in the unit of the
    store that the model was trained on: ``seconds_per_unit``.

    Attributes:
        path: Folder of the model, or of its adapter.
        config: Settings that a language model was trained with, or the defaults for a temporal
            expert; changed by ``from_pretrained(settings=)``.
        trained_tasks: Tasks that the model was trained on, with its event types and time unit.
        model: The language model on its device, or the temporal expert.
        gated: Expert that is mixed with the language model; None for none.
        soft: Forecasts of a language model of soft tokens; None for another template.
        vocabulary: Vocabulary of the texts that a temporal expert reads; None for other models.
    """

    path: str
    config: RunConfig
    trained_tasks: TrainedTasks
    model: LoadedModel | Expert
    gated: GatedExpert | None = None
    soft: SoftDistributions | None = None
    vocabulary: Vocabulary | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        base: str | PathLike[str] = "",
        expert: str | PathLike[str] = "",
        precision: str = "",
        settings: Mapping[str, object] | None = None,
    ) -> "Forecaster":
        """Load a model or an adapter.

        Args:
            path: Folder of the model or adapter: a local path, a remote URI or hf://.
            base: Folder of the model that the adapter adapts; by default the one that the adapter
                names.
            expert: Folder that ``jobs/combine.py`` wrote, whose expert is mixed with the language
                model; by default none.
            precision: ``float32`` or ``bfloat16``; by default bfloat16 on a GPU, float32 otherwise.
            settings: Settings that replace those of the training, by their full names, such as
                ``{"window.max_tokens": 8192}``.

        Raises:
            ModelError: The folder of the model or of its base does not exist or holds no model, or
                the model was not fine-tuned to forecast.
            ConfigError: A setting does not exist or has a wrong value.
        """
        path, base, expert = as_uri(path), as_uri(base), as_uri(expert)
        check_model_folder(path)
        description = describe_model(path)
        trained_tasks = description.trained_tasks
        if trained_tasks is not None and description.kind == ModelKind.EXPERT and not expert:
            return cls(
                path,
                with_values(RunConfig(), settings or {}),
                trained_tasks,
                load_expert(path),
                vocabulary=load_model_vocabulary(path),
            )
        model = _resolve_adapter(path, base, expert)
        if trained_tasks is None or not trained_tasks.can_forecast:
            raise ModelError(
                "the model was not fine-tuned to forecast",
                where=path,
                cause="it was not trained on the time or the type of the next event: run "
                "jobs/finetune.py on it",
            )
        config = with_values(RunConfig(), {**load_recorded_settings(path), **(settings or {})})
        precision = precision or ("bfloat16" if torch.cuda.is_available() else "float32")
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision = {precision!r}: must be float32 or bfloat16")
        check_backbone(model, config.template)
        gated = None
        if expert:
            vocabulary = load_model_vocabulary(path)
            gated = load_mixed_expert(model, description, trained_tasks, vocabulary, where=path)
        location = build_model_location(model, "", precision=precision)
        loaded = LoadedModel.load(location, image_px=config.template.image_px)
        is_soft = description.kind == ModelKind.SOFT
        soft = load_soft_distributions(location, loaded) if is_soft else None
        return cls(path, config, trained_tasks, loaded, gated, soft)

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the event types by code; empty if types have no names."""
        return self.trained_tasks.type_names

    @property
    def seconds_per_unit(self) -> float:
        """Length of one time unit, in seconds."""
        return self.trained_tasks.seconds_per_unit

    def save_pretrained(self, folder: str | Path) -> None:
        """Copy the model, or the adapter without its base, to a local folder.

        Args:
            folder: Local folder; created if it does not exist.
        """
        with local_folder(self.path) as source:
            assert source is not None
            shutil.copytree(source, folder, dirs_exist_ok=True)

    def load_sequences(
        self,
        uri: str | PathLike[str] | pd.DataFrame | pa.Table,
        *,
        kind: str = "",
        columns: Mapping[str, str] | None = None,
        split: str = "all",
        max_files: int = 0,
    ) -> Sequences:
        """Read events like ``mmtpp.load_sequences``, with the model's types and time unit.

        Args:
            uri: A file, a folder or an event store (a local path or a remote URI), or a table of
                pandas or PyArrow.
            kind: Format of the files, ``source.kind``.
            columns: Column names of a table, ``source.columns``.
            split: Split of an event store to read.
            max_files: Number of files to read, evenly spaced over the folder; 0 reads all files.

        Raises:
            ModelError: The events have other types or another time unit than the model.
            DataError: There are no events.
            ConfigError: The model reads a calendar, but the times are numbers.
        """
        sequences = load_sequences(
            uri,
            kind=kind,
            columns=columns,
            types=self.type_names,
            seconds_per_unit=self.seconds_per_unit,
            split=split,
            max_files=max_files,
        )
        where = str(uri) if isinstance(uri, str | PathLike) else "table"
        self.trained_tasks.check(sequences, where=where)
        if not isinstance(self.model, Expert):  # an expert does not read the template
            check_calendar(
                self.config.template, times_are_dates=sequences.times_are_dates, where=where
            )
        return sequences

    def sequence(
        self,
        times: Iterable[Any],
        types: Iterable[Any],
        *,
        texts: Iterable[Any] | None = None,
        images: Iterable[Any] | None = None,
        sequence_id: str = "sequence",
    ) -> EventSequence:
        """Build a sequence from lists of values.

        Args:
            times: (E,) numbers in the model's time unit, not decreasing, which count from
                1970-01-01T00:00:00 UTC if the model reads a calendar; or dates, which are
                converted with ``seconds_per_unit`` like in ``load_sequences``: numpy.datetime64,
                pandas Series or index, datetimes, ISO texts. A date without a time zone is UTC.
            types: (E,) names of types that the model knows, or their codes. If the names are whole
                numbers, a number is a name.
            texts: (E,) texts; None and NaN are empty texts. None if no event has a text.
            images: (E,) paths or URIs; None if an event has no image. None if no event has one.
            sequence_id: Name of the sequence. Random draws depend on it.

        Raises:
            DataError: A value is not a time, type, text or image (the message names its position),
                a type is unknown, or the columns differ in length.
        """
        columns = {
            "times": to_times(times, seconds_per_unit=self.seconds_per_unit, where=sequence_id),
            "types": to_types(types, self.type_names, where=sequence_id),
            "texts": to_texts(() if texts is None else texts, where=sequence_id),
            "images": to_images(() if images is None else images, where=sequence_id),
        }
        num_events = len(columns["times"])
        lengths = {
            name: len(values)
            for name, values in columns.items()
            if len(values) or name in ("times", "types")
        }
        check_lengths(lengths, where=sequence_id)
        return EventSequence(
            sequence_id,
            columns["times"],
            columns["types"],
            columns["texts"] or ("",) * num_events,
            columns["images"] or (None,) * num_events,
        )

    def forecast(
        self,
        sequence: EventSequence,
        *,
        futures: int = 0,
        horizon: float = 0.0,
        text: bool = False,
        seed: int = 0,
    ) -> Forecast:
        """Forecast the event after the last one.

        The model reads the newest events that fit into ``window.max_tokens``. ``Forecast.context``
        is the number of these events.

        Args:
            sequence: At least one event, with times and type codes of the model: a result of
                ``sequence`` or ``load_sequences`` of this object.
            futures: Number of futures to sample. A future is a sequence of events, sampled one
                after the other.
            horizon: Length of a future in the model's time unit; 0 limits futures only by
                ``prediction.max_future_events``.
            text: Generate the text of the next event as well.
            seed: Seed of the sampled futures.

        Raises:
            DataError: The times are not in order, a type or an image is invalid, or an event is
                larger than the context.
            ConfigError: The model was not fine-tuned on the tasks that the arguments need.
        """
        self._check_sequence(sequence)
        config = self.settings_of(futures=futures, horizon=horizon, text=text)
        if isinstance(self.model, Expert):
            return self._forecast_with_expert(self.model, sequence, config.prediction, seed)
        if self.soft is not None:
            return self._forecast_with_soft_model(self.model, self.soft, sequence, config, seed)
        forecaster = self.language_forecaster()
        return forecaster.forecast(forecaster.read(sequence), config.prediction, seed)

    def _forecast_with_expert(
        self, expert: Expert, sequence: EventSequence, prediction: PredictionSection, seed: int
    ) -> Forecast:
        vocabulary = self.vocabulary or load_model_vocabulary(self.path)
        past = read_past(sequence, vocabulary, expert, self.trained_tasks.type_codes)
        settings = DensityForecastSettings(
            trained_tasks=self.trained_tasks, prediction=prediction, seed=seed
        )
        state = SequenceState.after(expert.memory, past)
        return forecast_next_event(sequence.sequence_id, expert, state, settings)

    def _forecast_with_soft_model(
        self,
        loaded: LoadedModel,
        soft: SoftDistributions,
        sequence: EventSequence,
        config: RunConfig,
        seed: int,
    ) -> Forecast:
        history = read_soft_history(
            sequence,
            config,
            loaded.vocabulary,
            soft.model.settings.memory,
            seconds_per_unit=self.seconds_per_unit,
        )
        origin = Origin(
            sequence_id=sequence.sequence_id,
            num_events=len(sequence),
            context=len(history.row.event_type),
            time=float(sequence.times[-1]),
            type_code=int(sequence.types[-1]),
        )
        settings = DensityForecastSettings(
            trained_tasks=self.trained_tasks, prediction=config.prediction, seed=seed
        )
        batch = loaded.batcher(history.row)
        return forecast_after(
            origin, lambda size: soft.begin_rollout(batch, history.past, size), settings
        )

    def language_forecaster(self, *, max_cache_bytes: int = 0) -> LanguageForecaster:
        """The forecaster of sequences of a language model that reads templates.

        Args:
            max_cache_bytes: Largest memory of the keys and values that are kept of histories.

        Raises:
            ValueError: It is a temporal expert or a model of soft tokens.
        """
        if isinstance(self.model, Expert) or self.soft is not None:
            raise ValueError(f"{self.path} reads no templates")
        return LanguageForecaster(
            self.model,
            self.config,
            self.trained_tasks,
            path=self.path,
            gated=self.gated,
            max_cache_bytes=max_cache_bytes,
        )

    def settings_of(self, *, futures: int, horizon: float, text: bool) -> RunConfig:
        """The settings of a forecast.

        Args:
            futures: Number of futures, see ``forecast``.
            horizon: Length of a future, see ``forecast``.
            text: Whether the text of the next event is generated.

        Raises:
            ConfigError: The model was not fine-tuned on the tasks that the arguments need, or a
                number is out of range.
        """
        self._check_tasks(futures=futures, text=text)
        return with_values(
            self.config,
            {
                "prediction.num_futures": futures,
                "prediction.horizon": horizon,
                "prediction.generate_text": text,
            },
        )

    def _check_sequence(self, sequence: EventSequence) -> None:
        times, types = sequence.times, sequence.types

        def error(message: str, cause: str) -> DataError:
            return DataError(message, where=sequence.sequence_id, cause=cause)

        if not len(times):
            raise error("the sequence has no events", "a forecast needs at least one event")
        is_wrong = ~np.isfinite(times) | (np.diff(times, prepend=times[0]) < 0)
        if is_wrong.any():
            place = int(np.flatnonzero(is_wrong)[0])
            raise error(
                f"event {place} has the time {times[place]}",
                "times must be finite and in order",
            )
        count = len(self.type_names) or MAX_TYPES
        if not 0 <= types.min() <= types.max() < count:
            place = int(np.flatnonzero((types < 0) | (types >= count))[0])
            raise error(f"event {place} has the type {types[place]}", f"codes are 0 to {count - 1}")

    def _check_tasks(self, *, futures: int, text: bool) -> None:
        if futures:
            check_futures(self.trained_tasks.tasks, where=self.path, setting=f"futures = {futures}")
        if text and not {"time", "text"} <= {*self.trained_tasks.tasks}:
            raise ConfigError(
                "the text of the next event needs a model that was fine-tuned on tasks.time and "
                f"tasks.text; this model was fine-tuned on {', '.join(self.trained_tasks.tasks)}",
                where=self.path,
                setting=f"text = {text}",
            )


def _resolve_adapter(path: str, base: str, expert: str) -> ModelSection:
    """The model of a folder: the base and its adapter, or the whole model.

    Args:
        path: Folder of the model or adapter.
        base: Folder of the model that the adapter adapts; empty for the one that it names.
        expert: Folder of the mixed expert; empty for none.

    Raises:
        ModelError: The base does not exist or holds no model.
    """
    named = base_of_adapter(path)
    if named is None:
        return ModelSection(path=path, expert=expert)
    base = base or named
    check_model_folder(base, setting=f"base = {base}, the model that {path} adapts")
    return ModelSection(path=base, adapter=path, expert=expert)
