"""All families, chosen by ``model_type`` in ``config.json``.

Drivers import this module, so it and the families import transformers only where a model is built.
"""

import json
from pathlib import Path
from typing import Any

from mmtpp.config.schema import ModelSection, TemplateSection
from mmtpp.core.errors import ModelError
from mmtpp.model.backbones.family import Family, images_refused
from mmtpp.model.backbones.llama import LLAMA
from mmtpp.model.backbones.qwen2 import QWEN2
from mmtpp.model.backbones.qwen2_5_vl import QWEN2_5_VL
from mmtpp.model.backbones.qwen3 import QWEN3
from mmtpp.model.backbones.qwen3_vl import QWEN3_VL
from mmtpp.model.folders.folder import read_model_file
from mmtpp.model.tokens.vocabulary import VOCABULARY_FILE

CONFIG_FILE = "config.json"
BASE_FOLDER_HINT = "a Hugging Face folder with config.json, *.safetensors and tokenizer.json"
_ALL = (QWEN2_5_VL, QWEN3_VL, LLAMA, QWEN2, QWEN3)
FAMILIES = {family.model_type: family for family in _ALL}
# the family of adapters whose folder records none: they are older than the other families
OLDEST = QWEN2_5_VL


def family_named(model_type: str, *, where: str) -> Family:
    """The family with a name.

    Args:
        model_type: ``model_type`` of a ``config.json``.
        where: Location of the model, for the error.

    Raises:
        ModelError: No family has the name.
    """
    if model_type not in FAMILIES:
        raise ModelError(
            f"models of type {model_type!r} are not supported",
            where=where,
            cause=f"known types: {', '.join(FAMILIES)}; docs/backbones.md shows how to add one",
            setting="model.path",
        )
    return FAMILIES[model_type]


def family_of(model: Any) -> Family:
    """The family of a model of transformers.

    Raises:
        ModelError: The family is unknown.
    """
    return family_named(model.config.model_type, where=type(model).__name__)


def family_of_folder(folder: Path) -> Family:
    """The family of a local model folder.

    Raises:
        ModelError: The folder has no readable ``config.json``, or the family is unknown.
    """
    path = folder / CONFIG_FILE
    return _family_in(path.read_bytes() if path.exists() else None, where=str(folder))


def check_backbone(model: ModelSection, template: TemplateSection) -> None:
    """Check, before a model is loaded, that its family fits its adapter and the template.

    Args:
        model: Section ``model`` of the settings. Without a path the model is a new ``tiny``.
        template: Section ``template`` of the settings.

    Raises:
        ModelError: The family is unknown, differs from the adapter's, or sees no images although
            the template shows some.
    """
    content = read_model_file(model.path, CONFIG_FILE) if model.path else None
    if content is None:  # a new tiny, an expert, or no model, which other checks report
        return
    family = _family_in(content, where=model.path)
    if model.adapter:
        recorded = recorded_family(model.adapter)
        check_same_family(family.model_type, recorded, where=model.adapter)
    if family.image_format is None and template.images != "none":
        setting = f"template.images = {template.images}"
        raise images_refused(family.title, where=model.path, setting=setting)


def check_same_family(base: str, adapter: str, *, where: str) -> None:
    """Check that an adapter belongs to the family of the base model.

    Args:
        base: ``model_type`` of the base model.
        adapter: ``model_type`` of the adapter.
        where: Location of the adapter, for the error.

    Raises:
        ModelError: The families differ.
    """
    if base != adapter:
        raise ModelError(
            f"the adapter belongs to a {adapter} model, the base is a {base} model",
            where=where,
            cause="an adapter works only on the base that it was trained on",
            setting="model.path and model.adapter",
        )


def recorded_family(adapter_uri: str) -> str:
    """``model_type`` of the base that an adapter was trained on."""
    content = read_model_file(adapter_uri, VOCABULARY_FILE)
    return json.loads(content or "{}").get("model_type", OLDEST.model_type)


def record_family(model: Any, folder: Path) -> None:
    """Record the family of an adapter's base in ``vocabulary.json``; none for the oldest family."""
    family = family_of(model)
    if family is not OLDEST:
        path = folder / VOCABULARY_FILE
        tree = {**json.loads(path.read_text()), "model_type": family.model_type}
        path.write_text(json.dumps(tree, indent=2), encoding="utf-8")


def _family_in(content: bytes | None, *, where: str) -> Family:
    if content is None:
        raise ModelError("this is not a model folder", where=where, cause=BASE_FOLDER_HINT)
    try:
        model_type = json.loads(content)["model_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{CONFIG_FILE} names no model_type", where=where, cause=BASE_FOLDER_HINT
        ) from error
    return family_named(str(model_type), where=where)
