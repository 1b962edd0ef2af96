"""The template a model was trained with, kept in its folder: another one is another language."""

import json
import logging
from pathlib import Path

from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ModelError
from mmtpp.storage.hub import hub_folder, is_hub
from mmtpp.storage.paths import exists, join, read_bytes
from mmtpp.track.provenance import flat_settings

logger = logging.getLogger(__name__)

TEMPLATE_FILE = "template.json"
LANGUAGE = ("template.style", "template.time_bytes", "compression.run_encoding")
IMAGES = ("template.images", "template.image_px")


def write_template(config: RunConfig, folder: Path) -> None:
    """Record it beside the model."""
    settings = flat_settings(config)
    record = {key: settings[key] for key in (*LANGUAGE, *IMAGES)}
    (folder / TEMPLATE_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")


def check_template(config: RunConfig, uri: str, *, to_train: bool) -> None:
    """Compare the settings with those a model was trained with; one without a record passes.

    Args:
        config: of the job.
        uri: folder of the model or adapter.
        to_train: training goes on, so another language is worth a warning only.

    Raises:
        ModelError: the model would read a language it never saw.
    """
    if is_hub(uri):
        uri = str(hub_folder(uri, files=[TEMPLATE_FILE]))
    place = join(uri, TEMPLATE_FILE)
    if not exists(place):
        return
    record, settings = json.loads(read_bytes(place)), flat_settings(config)

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
