"""Run the steps of ``encode`` in this process, for tests of a single shard."""

import json

from mmtpp.core.errors import error_from_json
from mmtpp.data.encode.decode_step import DecodeImages
from mmtpp.data.encode.decoded_images import num_blocks
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.finish_step import FinishShard
from mmtpp.data.encode.read_step import ReadShard
from mmtpp.data.sources.tables import CsvFormat
from mmtpp.model.tokens.vocabulary import TOKENIZER_FILE
from mmtpp.storage.paths import join, write_bytes

SETTINGS = {
    "source_file": "",
    "source_kind": "mmtpp",
    "type_names": (),
    "finds_types": False,
    "folds_rare": False,
    "columns": None,
    "csv": CsvFormat(),
    "seconds_per_unit": 1.0,
    "image_px": 56,
    "max_image_pixels": 10**7,
    "max_image_bytes": 10**6,
    "malformed_file": "fail",
    "validation_fraction": 0.0,
    "test_fraction": 0.0,
    "tokenizer_size": 512,
}


def encode_shard(
    folder: str, paths: list[str], *, tokenizer: str, source_uri: str, **changes: object
) -> dict:
    """Encode files as shard 0 below ``folder`` and return its counts.

    Raises:
        MmtppError: A step reports a problem.
    """
    settings = EncodeSettings(**{**SETTINGS, "source_uri": source_uri, **changes})
    write_bytes(join(folder, TOKENIZER_FILE), tokenizer.encode())
    row = _checked(ReadShard(settings, folder)({"shard": 0, "paths": paths}))
    if not row["num_images"]:
        return json.loads(row["counts"])
    decode = DecodeImages(settings, folder)
    for block in range(num_blocks(row["num_images"])):
        _checked(decode({"shard": 0, "block": block}))
    return json.loads(_checked(FinishShard(folder)({"shard": 0}))["counts"])


def _checked(row: dict) -> dict:
    if row["problem"]:
        raise error_from_json(row["problem"])
    return row
