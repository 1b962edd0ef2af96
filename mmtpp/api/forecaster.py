"""A fine-tuned model in this process: one sequence in, the forecast of what comes next out."""

import json
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

from mmtpp.api.sequences import Sequences, load_sequences
from mmtpp.api.values import check_lengths, images_of, texts_of, times_of, types_of
from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.core.branches import branch_costs, check_futures, lay_out_branches
from mmtpp.core.compression import compress
from mmtpp.core.errors import ConfigError, DataError, ModelError
from mmtpp.core.events import MAX_TYPES, Events, EventSequence
from mmtpp.core.intervals import IntervalGrid
from mmtpp.core.row import Row
from mmtpp.core.shorten import fit_texts, shorten, shorten_to_fit
from mmtpp.core.template import Template
from mmtpp.core.window import EventTooLongError, Window, check_events, last_window
from mmtpp.data.encode.raw_data import distinct_images, tokenised
from mmtpp.data.settings import compression_of, template_of
from mmtpp.data.store.images import load_image
from mmtpp.evaluate.context import writing_settings
from mmtpp.model.adapter import CONFIG_FILE
from mmtpp.model.folder import local_folder, read_file
from mmtpp.model.loaded import LoadedModel, ModelSource
from mmtpp.model.record import Answers, recorded_answers, recorded_settings
from mmtpp.predict.next_event import Forecast, NextEvent, NextEventSettings, SeenEvents
from mmtpp.storage.model_folder import check_model_folder
from mmtpp.storage.paths import as_uri

logger = logging.getLogger(__name__)

_ASKED = ("time", "type")


@dataclass(frozen=True, slots=True)
class Forecaster:
    """A model that was fine-tuned to forecast (``jobs/finetune.py``).

    Made by ``from_pretrained``. Times are in the unit of the model's own store,
    ``seconds_per_unit``.

    Attributes:
        path: of the model, or of its adapter.
        config: the settings it was trained with, and what differs from them.
        answers: what it was asked, its types and unit.
        loaded: the model on its device.
    """

    path: str
    config: RunConfig
    answers: Answers
    loaded: LoadedModel

    @classmethod
    def from_pretrained(
        cls,
        path: str | PathLike[str],
        *,
        base: str | PathLike[str] = "",
        precision: str = "",
        settings: Mapping[str, object] | None = None,
    ) -> "Forecaster":
        """Load a model or an adapter.

        Args:
            path: folder of the model or adapter; local, s3:// or hf://.
            base: folder of the model that an adapter adapts; what the adapter names otherwise.
            precision: ``float32`` or ``bfloat16``; by default bfloat16 on GPUs.
            settings: that differ from those it was trained with, by their path, such as
                ``{"window.max_tokens": 8192}``.

        Raises:
            ModelError: the folder of the model or of its base is not there or holds no model, or
                the model was not fine-tuned to forecast.
            ConfigError: no such setting.
        """
        path, base = as_uri(path), as_uri(base)
        check_model_folder(path)
        adapter = read_file(path, CONFIG_FILE)
        if adapter is not None and not base:
            base = str(json.loads(adapter)["base_model_name_or_path"] or "")
        if adapter is not None:
            check_model_folder(base, setting=f"base = {base}, the model that {path} adapts")
        answers = recorded_answers(path)
        if answers is None or not {*_ASKED} & {*answers.tasks}:
            raise ModelError(
                "the model was not fine-tuned to forecast",
                where=path,
                cause="it was never asked when the next event comes, or of which type it is; run "
                "jobs/finetune.py on it",
            )
        config = with_values(RunConfig(), {**recorded_settings(path), **(settings or {})})
        precision = precision or ("bfloat16" if torch.cuda.is_available() else "float32")
        if precision not in ("float32", "bfloat16"):
            raise ConfigError(f"precision = {precision!r}: float32 or bfloat16")
        model, adapter_uri = (base, path) if adapter is not None else (path, "")
        source = ModelSource(model, adapter_uri, "", precision)
        loaded = LoadedModel.of(source, image_px=config.template.image_px)
        return cls(path, config, answers, loaded)

    @property
    def type_names(self) -> tuple[str, ...]:
        """Names of the types by code, possibly empty."""
        return self.answers.type_names

    @property
    def seconds_per_unit(self) -> float:
        """Seconds in one unit of the times."""
        return self.answers.seconds_per_unit

    def save_pretrained(self, folder: str | Path) -> None:
        """Copy the model, or the adapter without its base, to a local folder."""
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
        """Read events as ``mmtpp.load_sequences`` does, with the model's types and unit.

        Args:
            uri: a file, a folder or a store: a local path or s3://; or a table of pandas or
                PyArrow.
            kind: of files, ``source.kind``.
            columns: the mapping of a table's columns, ``source.columns``.
            split: of a store.
            max_files: files read, evenly spread; 0 for all.

        Raises:
            ModelError: the store or the files have other types, or another unit.
            DataError: nothing there that is an event.
        """
        found = load_sequences(
            uri,
            kind=kind,
            columns=columns,
            types=self.type_names,
            seconds_per_unit=self.seconds_per_unit,
            split=split,
            max_files=max_files,
        )
        self.answers.check(found, where=str(uri) if isinstance(uri, str | PathLike) else "table")
        return found

    def sequence(
        self,
        times: Iterable[Any],
        types: Iterable[Any],
        *,
        texts: Iterable[Any] | None = None,
        images: Iterable[Any] | None = None,
        sequence_id: str = "sequence",
    ) -> EventSequence:
        """Make a sequence of one's own events.

        Args:
            times: E numbers in the model's unit, not decreasing; or dates, which are converted with
                ``seconds_per_unit`` as ``load_sequences`` does: numpy.datetime64, pandas Series or
                index, datetimes, ISO texts. A date without a time zone is UTC.
            types: E names that the model knows, or codes. Where the names are whole numbers, a
                number is a name.
            texts: E texts; None or NaN is an empty one. None for events without text.
            images: E paths or URIs; None where an event has no image. None for events without any.
            sequence_id: its name, on which random draws depend.

        Raises:
            DataError: a value that is no time, type, text or image, by position; an unknown type;
                columns of unequal length.
        """
        columns = {
            "times": times_of(times, seconds_per_unit=self.seconds_per_unit, where=sequence_id),
            "types": types_of(types, self.type_names, where=sequence_id),
            "texts": texts_of(() if texts is None else texts, where=sequence_id),
            "images": images_of(() if images is None else images, where=sequence_id),
        }
        size = len(columns["times"])
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
            columns["texts"] or ("",) * size,
            columns["images"] or (None,) * size,
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

        The model sees the newest events, as many as fit ``window.max_tokens``; ``context`` of the
        forecast says how many.

        Args:
            sequence: at least one event, in the model's unit and codes of types, as ``sequence``
                and ``load_sequences`` of this object give them.
            futures: whole futures to draw, one event after the other.
            horizon: of the futures, in the model's unit; 0 for none but
                ``prediction.max_future_events``.
            text: also write the text of the next event.
            seed: of the futures.

        Raises:
            DataError: times out of order, a type or an image that is none, an event that is larger
                than the context.
            ConfigError: the model was not asked what this needs.
        """
        self._check(sequence)
        self._check_wanted(futures=futures, text=text)
        config = with_values(
            self.config,
            {"prediction.futures": futures, "prediction.horizon": horizon, "prediction.text": text},
        )
        grid = self.answers.intervals.grid(num_bytes=config.template.time_bytes)
        template = Template(self.loaded.token_ids, template_of(config), asked=True)
        forecast = NextEvent(
            self.loaded,
            template,
            NextEventSettings(
                answers=self.answers,
                grid=grid,
                prediction=config.prediction,
                writing=writing_settings(config.generation),
                seed=seed,
            ),
        )
        return forecast(self._history(sequence, template, grid))

    def _history(
        self, sequence: EventSequence, template: Template, grid: IntervalGrid
    ) -> SeenEvents:
        """The newest events with the questions about what follows, as the predict job has them."""
        config = self.config
        [events] = tokenised([sequence], self.loaded.vocabulary)
        events = compress(events, compression_of(config).of_sequence(sequence.sequence_id))
        tasks = [task for task in _ASKED if task in self.answers.tasks]
        window, events = self._fit(events, template, tasks, sequence.sequence_id)
        seen = events.slice(window.start, window.end)
        laid = lay_out_branches(
            template, seen, [len(seen)], tasks=tasks, expansions=grid.first_bytes
        )
        frames, image_frame = np.unique(laid.tokens.frames, return_inverse=True)
        images = distinct_images(sequence)
        image_px = config.template.image_px
        pixels = [load_image(images[each], image_px=image_px) for each in frames.tolist()]
        row = Row(
            sample_id=0,
            input_ids=laid.tokens.ids,
            modality=laid.tokens.modality,
            segment=np.zeros(len(laid.tokens.ids), dtype=np.int32),
            event=laid.tokens.event,
            scored=laid.is_answer,
            frames=np.array(pixels, dtype=np.uint8).reshape(-1, image_px, image_px, 3),
            image_frame=image_frame.astype(np.int32),
            event_type=seen.types,
            event_is_target=np.zeros(len(seen), dtype=np.bool_),
            branches=laid.branches,
            questions=laid.questions,
        )
        times = sequence.times[window.start : window.end]
        return SeenEvents(sequence.sequence_id, row, len(sequence), times)

    def _fit(
        self, events: Events, template: Template, tasks: list[str], sequence_id: str
    ) -> tuple[Window, Events]:
        """The newest events that fit, and all events with their texts as they are written."""
        max_tokens, limit = (
            self.config.window.max_tokens,
            self.config.template.max_text_tokens or None,
        )

        def cut(events: Events) -> Window:
            check_events(events, template, max_tokens=max_tokens)
            costs = branch_costs(template, events, tasks=tasks)
            return last_window(
                events, template, max_tokens=max_tokens, question_tokens=int(costs[-1])
            )

        whole, events = events, shorten(events, limit)
        try:
            if self.config.window.long_events == "stop":
                window = cut(events)
            else:
                window, longest = fit_texts(events, cut, max_tokens=max_tokens)
                events = shorten_to_fit(events, longest, max_tokens=max_tokens)
        except EventTooLongError as error:
            raise DataError(
                str(error),
                where=sequence_id,
                cause="a single event does not fit the context",
                setting=f"window.max_tokens = {max_tokens}, template.max_text_tokens, "
                f"window.long_events = {self.config.window.long_events}",
            ) from error
        is_cut = np.diff(whole.text_offsets) > np.diff(events.text_offsets)
        if num_cut := int(is_cut[window.start : window.end].sum()):
            logger.warning(
                "%s: %d texts were cut (window.max_tokens = %d, template.max_text_tokens = %d)",
                sequence_id,
                num_cut,
                max_tokens,
                self.config.template.max_text_tokens,
            )
        return window, events

    def _check(self, sequence: EventSequence) -> None:
        times, types = sequence.times, sequence.types

        def bad(what: str, cause: str) -> DataError:
            return DataError(what, where=sequence.sequence_id, cause=cause)

        if not len(times):
            raise bad("the sequence has no events", "a forecast continues at least one")
        is_wrong = ~np.isfinite(times) | (np.diff(times, prepend=times[0]) < 0)
        if is_wrong.any():
            place = int(np.flatnonzero(is_wrong)[0])
            raise bad(
                f"event {place} has the time {times[place]}",
                "times must be finite and in order",
            )
        count = len(self.type_names) or MAX_TYPES
        if not 0 <= types.min() <= types.max() < count:
            place = int(np.flatnonzero((types < 0) | (types >= count))[0])
            raise bad(f"event {place} has the type {types[place]}", f"codes are 0 to {count - 1}")

    def _check_wanted(self, *, futures: int, text: bool) -> None:
        if futures:
            check_futures(self.answers.tasks, where=self.path, setting=f"futures = {futures}")
        if text and not {"time", "text"} <= {*self.answers.tasks}:
            raise ConfigError(
                f"the model was asked for {', '.join(self.answers.tasks)}, not for text and time",
                where=self.path,
                setting=f"text = {text}",
            )
