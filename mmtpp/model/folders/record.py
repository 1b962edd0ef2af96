"""The record in a model folder: the template and the tasks that the model was trained with.

A model cannot read another template, and it cannot answer a task that it was not trained on.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

from mmtpp.config.schema import SampleSections
from mmtpp.core.errors import ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.compression import RECENT_FULL
from mmtpp.model.folders.folder import read_model_file

logger = logging.getLogger(__name__)

TEMPLATE_FILE = "template.json"
_TEMPLATE_KEYS = (
    "template.style",
    "template.time_bytes",
    "compression.run_encoding",
    "template.calendar",
    "template.time_zone",
    "template.types",
)
_NO_CALENDAR = {"template.calendar": "none", "template.time_zone": "UTC"}
_NO_WORDS = {"template.types": "code"}
_IMAGE_KEYS = ("template.images", "template.image_px")
# defaults of forecasts with the model; other values are possible
_STRATEGY = "compression.strategy"
_FORECAST_KEYS = (
    _STRATEGY,
    "compression.delta",
    "compression.min_text_similarity",
    "compression.drop_fraction",
    "compression.older_fraction",
    "window.max_tokens",
    "template.max_text_tokens",
)


class EventDescription(Protocol):
    """Time unit and type names of events: a store's manifest, or sequences in memory."""

    @property
    def seconds_per_unit(self) -> float: ...
    @property
    def type_names(self) -> Sequence[str]: ...


_TASKS_KEY = "answers"  # in the file; the name of the tasks when the format was made


@dataclass(frozen=True, slots=True)
class TrainedTasks:
    """Tasks that a model was trained on, and the events of its store.

    Attributes:
        tasks: Names of the tasks.
        interval_range: Range of the intervals in the training split.
        type_codes: Codes of the types that occur in the store.
        type_names: Names of the types by code; empty if the types have no names.
        seconds_per_unit: Length of the store's time unit, in seconds.
        trains_history: Whether the events of the history were trained too.
    """

    tasks: tuple[str, ...]
    interval_range: IntervalRange
    type_codes: tuple[int, ...]
    type_names: tuple[str, ...]
    seconds_per_unit: float
    trains_history: bool

    @property
    def can_forecast(self) -> bool:
        """Whether the model forecasts the time or the type of the next event."""
        return not {"time", "type"}.isdisjoint(self.tasks)

    def name_of(self, code: int) -> str:
        """The name of a type, or its code if the type has no name."""
        return self.type_names[code] if code < len(self.type_names) else str(code)

    def check(self, events: EventDescription, *, where: str) -> None:
        """Check that the model can forecast these events.

        Args:
            events: Time unit and type names of the events.
            where: Location of the events, for the error.

        Raises:
            ModelError: The times have another unit, or the types have other names.
        """
        if events.seconds_per_unit != self.seconds_per_unit:
            raise ModelError(
                f"times are in units of {events.seconds_per_unit:g} s, the model was trained "
                f"with units of {self.seconds_per_unit:g} s",
                where=where,
                cause="source.seconds_per_unit differed when the events were prepared",
            )
        if tuple(events.type_names) != tuple(self.type_names):
            names = ", ".join(events.type_names) or "nameless"
            trained_names = ", ".join(self.type_names) or "nameless"
            raise ModelError(
                f"the types are {names}; in the model's training events they are {trained_names}",
                where=where,
                cause="source.types, or their order, differed when the events were prepared",
            )


def write_template(
    sections: SampleSections, folder: Path, trained_tasks: TrainedTasks | None
) -> None:
    """Write the record of the template, and of the tasks after fine-tuning, to a model folder."""
    record: dict[str, object] = {
        key: attrgetter(key)(sections) for key in (*_TEMPLATE_KEYS, *_IMAGE_KEYS, *_FORECAST_KEYS)
    }
    if trained_tasks is not None:
        record[_TASKS_KEY] = _tasks_tree(trained_tasks)
    (folder / TEMPLATE_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")


def _tasks_tree(trained_tasks: TrainedTasks) -> dict[str, object]:
    """The tasks as the file has them; its keys are older than the names of the attributes."""
    tree = asdict(trained_tasks)
    tree["intervals"] = tree.pop("interval_range")
    tree["history"] = tree.pop("trains_history")
    return tree


def write_tasks(trained_tasks: TrainedTasks, folder: Path) -> None:
    """Write the record of a model that reads no template to its folder."""
    record = {_TASKS_KEY: _tasks_tree(trained_tasks)}
    (folder / TEMPLATE_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")


def load_recorded_settings(uri: str) -> dict[str, object]:
    """Settings of template, compression and context that a model was trained with, by key."""
    record = _read_record(uri)
    return {
        key: record[key]
        for key in (*_TEMPLATE_KEYS, *_IMAGE_KEYS, *_FORECAST_KEYS)
        if key in record
    }


def load_trained_tasks(uri: str) -> TrainedTasks | None:
    """Tasks that the model of a folder was trained on; None for a model of stage 1."""
    tree = _read_record(uri).get(_TASKS_KEY)
    if tree is None:
        return None
    return TrainedTasks(
        tasks=tuple(tree["tasks"]),
        interval_range=IntervalRange(**tree["intervals"]),
        type_codes=tuple(tree["type_codes"]),
        type_names=tuple(tree["type_names"]),
        seconds_per_unit=tree["seconds_per_unit"],
        trains_history=tree["history"],
    )


def check_template(sections: SampleSections, uri: str, *, to_train: bool) -> None:
    """Compare settings with those a model was trained with; a model without a record passes.

    Args:
        sections: Sections of the configuration that shape samples.
        uri: Folder of the model or adapter.
        to_train: Whether the model is trained further; then another template only causes a warning.

    Raises:
        ModelError: The model was trained with another template.
    """
    record = _read_record(uri)
    if "template.style" in record:
        # the model may be older than these settings
        record = _NO_CALENDAR | _NO_WORDS | record

    def differences(keys: tuple[str, ...]) -> str:
        values = {key: attrgetter(key)(sections) for key in keys}
        return ", ".join(
            f"{key} = {record[key]}, here {value}"
            for key, value in values.items()
            if key in record and record[key] != value
        )

    template_keys = _TEMPLATE_KEYS
    if RECENT_FULL in (record.get(_STRATEGY), sections.compression.strategy):
        # decides what the vector of a similar-event token holds
        template_keys = (*template_keys, _STRATEGY)
    if record.get("template.calendar") == sections.template.calendar == "none":
        template_keys = tuple(key for key in template_keys if key not in _NO_CALENDAR)
    template = differences(template_keys)
    if template and not to_train:
        raise ModelError(
            f"the model was trained with {template}",
            where=uri,
            cause="the model cannot read another template; set these values, or train it further",
        )
    if changes := ", ".join(filter(None, (template, differences(_IMAGE_KEYS)))):
        logger.warning("%s was trained with %s", uri, changes)


def _read_record(uri: str) -> dict[str, Any]:
    return json.loads(read_model_file(uri, TEMPLATE_FILE) or "{}")
