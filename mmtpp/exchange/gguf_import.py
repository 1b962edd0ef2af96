"""Imports a GGUF file: writes its model once as a Hugging Face folder.

The weights are read by transformers, which dequantises them. The folder holds safetensors, JSON and
the chat template, so every job, PEFT and transformers use it like a published model.
``model_source.json`` records the file and its SHA-256.
"""

import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoModelForCausalLM, GgufConfig, PreTrainedModel

from mmtpp.core.errors import ModelError
from mmtpp.exchange.gguf_tokenizer import build_tokenizer, save_tokenizer
from mmtpp.storage.model_folder import SOURCE_FILE
from mmtpp.storage.paths import (
    copy_file,
    copy_folder,
    exists,
    join,
    list_files,
    read_bytes,
    split_file,
)

logger = logging.getLogger(__name__)

ARCHITECTURES = ("llama", "qwen2", "qwen3")
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_CHUNK_BYTES = 2**24
_CARD = """---
{header}
---
# {name}

Imported by `mmtpp import` from `{file}` (GGUF, {size:,} bytes, SHA-256 `{sha256}`).
The weights were dequantised to {precision}.
"""


@dataclass(frozen=True, slots=True)
class ImportRecord:
    """Origin of an imported model.

    Attributes:
        file: Name of the GGUF file.
        sha256: SHA-256 of the file, in hexadecimal digits.
        size: Size of the file, in bytes.
        name: Name of the model, according to the file.
        architecture: Architecture of the model, for example ``llama``.
        license: Licence of the model, according to the file; empty if the file names none.
        precision: Number format of the written weights.
        transformers: Version of transformers, which read the weights.
    """

    file: str
    sha256: str
    size: int
    name: str
    architecture: str
    license: str
    precision: str
    transformers: str


def import_gguf(file_uri: str, folder_uri: str, *, precision: str) -> tuple[ImportRecord, bool]:
    """Write the model of a GGUF file as a Hugging Face folder.

    Args:
        file_uri: GGUF file: a local path or a remote URI.
        folder_uri: Folder to write: a local path or a remote URI. A folder with the same model is
            kept.
        precision: Number format of the weights, a key of ``PRECISIONS``.

    Returns:
        The origin of the model, and whether the folder already had it.

    Raises:
        ModelError: The file is no GGUF file, its architecture or tokenizer is not supported, or
            the folder has other files.
        StorageError: The file or the folder cannot be reached.
    """
    with _local_file(file_uri) as path:
        fields = read_fields(path)
        source = _describe(path, fields, precision)
        if _is_imported(folder_uri, source):
            return source, True
        tokenizer = build_tokenizer(fields, where=file_uri)
        model = _load_weights(path, dtype=PRECISIONS[precision])
        with tempfile.TemporaryDirectory(prefix="mmtpp-import-") as temporary:
            folder = Path(temporary)
            _save_weights(model, folder)
            save_tokenizer(tokenizer, fields, folder)
            (folder / "README.md").write_text(_card(source), encoding="utf-8")
            record = json.dumps(asdict(source), indent=2)
            copy_folder(str(folder), folder_uri)
            # last, so that an interrupted copy does not count as imported
            (folder / SOURCE_FILE).write_text(record, encoding="utf-8")
            copy_file(str(folder / SOURCE_FILE), join(folder_uri, SOURCE_FILE))
    return source, False


@contextmanager
def _local_file(uri: str) -> Iterator[Path]:
    """The file itself, or a temporary copy of a remote file."""
    folder, name = split_file(uri)
    if not name:
        raise ModelError(
            "there is no such file", where=uri, cause="the path is mistyped, or names a folder"
        )
    if "://" not in uri:
        yield Path(uri).expanduser()
        return
    with tempfile.TemporaryDirectory(prefix="mmtpp-gguf-") as temporary:
        path = Path(temporary) / name
        copy_file(join(folder, name), str(path))
        yield path


def read_fields(path: Path) -> dict[str, object]:
    """Metadata of a GGUF file, by key.

    Args:
        path: The file.

    Raises:
        ModelError: The file is damaged or of another kind, or the model is not supported.
    """
    try:
        reader = gguf.GGUFReader(path)
        fields: dict[str, object] = {key: field.contents() for key, field in reader.fields.items()}
    except (ValueError, IndexError, KeyError, OverflowError, OSError) as error:
        raise ModelError(
            f"this file cannot be read as GGUF: {error}",
            where=str(path),
            cause="the file is incomplete or of another kind",
        ) from error
    architecture = fields.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"the model has the architecture {architecture}; supported are "
            f"{', '.join(ARCHITECTURES)}",
            where=str(path),
        )
    scaling = fields.get(f"{architecture}.rope.scaling.type", "none")
    has_factors = any(tensor.name.startswith("rope_factors") for tensor in reader.tensors)
    has_factors |= any(tensor.name.startswith("rope_freqs") for tensor in reader.tensors)
    if scaling != "none" or has_factors:
        raise ModelError(
            "the model scales its rotary positions, and transformers does not read this scaling "
            "from a GGUF file",
            where=str(path),
            cause="Llama 3.1 and later, and models with extended contexts; use the Hugging Face "
            "folder of the model",
        )
    return fields


def _describe(path: Path, fields: dict[str, object], precision: str) -> ImportRecord:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return ImportRecord(
        file=path.name,
        sha256=digest.hexdigest(),
        size=path.stat().st_size,
        name=str(fields.get("general.name", path.stem)),
        architecture=str(fields["general.architecture"]),
        license=str(fields.get("general.license", "")),
        precision=precision,
        transformers=version("transformers"),
    )


def _is_imported(folder_uri: str, source: ImportRecord) -> bool:
    """Whether the folder has the same model.

    Raises:
        ModelError: The folder has other files.
    """
    if not exists(folder_uri):
        return False
    record = join(folder_uri, SOURCE_FILE)
    if exists(record):
        written = json.loads(read_bytes(record))
        if (written["sha256"], written["precision"]) == (source.sha256, source.precision):
            return True
    if list_files(folder_uri, ""):
        raise ModelError(
            "the folder is not empty and has another model, or an import was interrupted",
            where=folder_uri,
            cause="name a new folder, or delete this one",
        )
    return False


def _load_weights(path: Path, *, dtype: torch.dtype) -> PreTrainedModel:
    """Load the weights with transformers' reader.

    Raises:
        ModelError: The weights do not fit the architecture.
    """
    try:
        # a pair, because of output_loading_info
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path.parent,
            gguf_file=path.name,
            # without this, transformers would fetch kernels for packed weights from the hub
            quantization_config=GgufConfig(dequantize=True),
            dtype=dtype,
            local_files_only=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"the weights cannot be read: {error}", where=str(path)) from error
    model, report = loaded
    problems = {key: sorted(map(str, keys)) for key, keys in report.items() if keys}
    if problems:
        raise ModelError(f"the weights do not fit the architecture: {problems}", where=str(path))
    return model


def _save_weights(model: PreTrainedModel, folder: Path) -> None:
    """Write config and safetensors, without the traces of the quantised file."""
    dropped = ("quantization_config", "_model_name_or_path", "_name_or_path")
    tree = {key: value for key, value in model.config.to_dict().items() if key not in dropped}
    config = type(model.config).from_dict({**tree, "dtype": model.dtype})
    with torch.device("meta"):
        plain = type(model)(config)
    plain.tie_weights()
    plain.save_pretrained(folder, state_dict=model.state_dict())


def _card(source: ImportRecord) -> str:
    header = f"license: {source.license}" if source.license else "library_name: transformers"
    return _CARD.format(header=header, **asdict(source))
