"""What a model was trained to read and to answer, kept in its folder.

Another template is another language; a task it was never asked is one it cannot answer.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from mmtpp.config.flat_settings import flat_settings
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ModelError
from mmtpp.core.interval_forecasts import IntervalRange
from mmtpp.model.folder import read_file

logger = logging.getLogger(__name__)

TEMPLATE_FILE = "template.json"
LANGUAGE = ("template.style", "template.time_bytes", "compression.run_encoding")
IMAGES = ("template.images", "template.image_px")
# what a forecast is made with unless told otherwise; a model can be used with others
DEFAULTS = (
    "compression.strategy",
    "compression.delta",
    "compression.min_text_similarity",
    "compression.drop_fraction",
    "window.max_tokens",
    "template.max_text_tokens",
)


class Events(Protocol):
    """A store's manifest, or sequences in memory."""

    @property
    def seconds_per_unit(self) -> float: ...
    @property
    def type_names(self) -> Sequence[str]: ...


@dataclass(frozen=True, slots=True)
class Answers:
    """What a fine-tuned model answers.

    Attributes:
        tasks: names of the tasks it was asked.
        intervals: of its training split.
        type_codes: types that occur in its store.
        type_names: names of the types by code, possibly empty.
        seconds_per_unit: of its store's times.
        history: whether it was also trained on the events of the history.
    """

    tasks: tuple[str, ...]
    intervals: IntervalRange
    type_codes: tuple[int, ...]
    type_names: tuple[str, ...]
    seconds_per_unit: float
    history: bool

    def name_of(self, code: int) -> str:
        """The name of a type, or its code where it has none."""
        return self.type_names[code] if code < len(self.type_names) else str(code)

    def check(self, events: Events, *, where: str) -> None:
        """Compare with events that are to be forecast.

        Raises:
            ModelError: their times are in another unit, or their types have other names.
        """
        if events.seconds_per_unit != self.seconds_per_unit:
            raise ModelError(
                f"times are in units of {events.seconds_per_unit:g} s, the model was trained "
                f"with units of {self.seconds_per_unit:g} s",
                where=where,
                cause="source.seconds_per_unit differed when the events were prepared",
            )
        names = [", ".join(each) or "nameless" for each in (events.type_names, self.type_names)]
        if names[0] != names[1]:
            raise ModelError(
                f"the types are {names[0]}; of the model's own store they are {names[1]}",
                where=where,
                cause="source.types, or their order, differed when the events were prepared",
            )


def write_template(config: RunConfig, folder: Path, answers: Answers | None) -> None:
    """Record it beside the model, with what it answers after fine-tuning."""
    settings = flat_settings(config)
    record: dict[str, object] = {key: settings[key] for key in (*LANGUAGE, *IMAGES, *DEFAULTS)}
    if answers is not None:
        record["answers"] = asdict(answers)
    (folder / TEMPLATE_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")


def recorded_settings(uri: str) -> dict[str, object]:
    """Template, compression and context that the model of a folder was trained with."""
    record = _read(uri)
    return {key: record[key] for key in (*LANGUAGE, *IMAGES, *DEFAULTS) if key in record}


def recorded_answers(uri: str) -> Answers | None:
    """What the model of a folder answers; None if it was not fine-tuned."""
    answers = _read(uri).get("answers")
    if answers is None:
        return None
    return Answers(
        tasks=tuple(answers["tasks"]),
        intervals=IntervalRange(**answers["intervals"]),
        type_codes=tuple(answers["type_codes"]),
        type_names=tuple(answers["type_names"]),
        seconds_per_unit=answers["seconds_per_unit"],
        history=answers["history"],
    )


def check_template(config: RunConfig, uri: str, *, to_train: bool) -> None:
    """Compare the settings with those a model was trained with; one without a record passes.

    Args:
        config: of the job.
        uri: folder of the model or adapter.
        to_train: training goes on, so another language is worth a warning only.

    Raises:
        ModelError: the model would read a language it never saw.
    """
    record, settings = _read(uri), flat_settings(config)

    def different(keys: tuple[str, ...]) -> str:
        return ", ".join(
            f"{key} = {record[key]}, here {settings[key]}"
            for key in keys
            if key in record and record[key] != settings[key]
        )

    language = different(LANGUAGE)
    if language and not to_train:
        raise ModelError(
            f"the model was trained with {language}",
            where=uri,
            cause="it never saw what it would be given; use its template, or train it further",
        )
    if found := ", ".join(filter(None, (language, different(IMAGES)))):
        logger.warning("%s was trained with %s", uri, found)


def _read(uri: str) -> dict[str, Any]:
    return json.loads(read_file(uri, TEMPLATE_FILE) or "{}")
