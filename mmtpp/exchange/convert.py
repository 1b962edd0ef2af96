"""Writes an event store as JSON of EasyTPP, or as a folder for Hugging Face ``datasets``.

One file of the store is in memory at a time. ``jobs/prepare.py`` reads both formats:
``source.kind = easytpp`` and ``source.kind = columns``.
"""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from mmtpp.core.errors import DataError
from mmtpp.core.events import EventSequence, intervals_from_times
from mmtpp.data.store.contents import iterate_split_sequences, open_store
from mmtpp.data.store.images import load_image
from mmtpp.model.folders.card import escape_markdown
from mmtpp.model.processor import encode_image
from mmtpp.storage.manifest import Manifest, load_manifest

EASYTPP_NAMES = {"train": "train", "validation": "dev", "test": "test"}
COLUMNS = {
    "sequence": "sequence_id",
    "time": "times",
    "type": "types",
    "text": "texts",
    "image": "images",
}
"""``source.columns`` that read the folder for ``datasets``."""
_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("times", pa.list_(pa.float64())),
        ("types", pa.list_(pa.int16())),
        ("type_names", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("images", pa.list_(pa.string())),  # paths relative to the folder
    ]
)


def to_easytpp(store_uri: str, folder: Path) -> dict[str, int]:
    """Write ``train.json``, ``dev.json`` and ``test.json`` with times and types.

    Texts and images are left out, because EasyTPP does not support them.

    Args:
        store_uri: Location of the event store.
        folder: Local folder that is empty or does not exist.

    Returns:
        Number of sequences in each split.

    Raises:
        DataError: The folder is not empty.
        StorageError: There is no store.
    """
    manifest = load_manifest(store_uri)
    _create_folder(folder)
    num_types = len(manifest.type_counts)
    counts = dict.fromkeys(EASYTPP_NAMES, 0)
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {
            split: stack.enter_context((folder / f"{name}.json").open("w", encoding="utf-8"))
            for split, name in EASYTPP_NAMES.items()
        }
        for file in files.values():
            file.write("[")
        for split, sequence in _read_sequences(store_uri, manifest):
            row = {
                "dim_process": num_types,
                "seq_idx": counts[split],
                "seq_len": len(sequence),
                "time_since_start": (sequence.times - sequence.times[0]).tolist(),
                "time_since_last_event": intervals_from_times(sequence.times).tolist(),
                "type_event": sequence.types.tolist(),
            }
            files[split].write((",\n" if counts[split] else "\n") + json.dumps(row))
            counts[split] += 1
        for file in files.values():
            file.write("\n]\n")
    return counts


def to_datasets(store_uri: str, folder: Path) -> dict[str, int]:
    """Write a folder for ``datasets.load_dataset``.

    It holds one Parquet file per split with one row per sequence, the images, and a dataset card.

    Args:
        store_uri: Location of the event store.
        folder: Local folder that is empty or does not exist.

    Returns:
        Number of sequences in each split.

    Raises:
        DataError: The folder is not empty.
        StorageError: There is no store.
    """
    manifest = load_manifest(store_uri)
    _create_folder(folder)
    (folder / "data").mkdir()
    counts = dict.fromkeys(EASYTPP_NAMES, 0)
    image_paths: dict[str, str] = {}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                pq.ParquetWriter(folder / "data" / f"{split}.parquet", _SCHEMA, compression="zstd")
            )
            for split in counts
        }
        for split, sequence in _read_sequences(store_uri, manifest):
            names = manifest.type_names
            row = {
                "sequence_id": sequence.sequence_id,
                "times": sequence.times,
                "types": sequence.types,
                "type_names": [
                    names[code] if code < len(names) else str(code)
                    for code in sequence.types.tolist()
                ],
                "texts": list(sequence.texts),
                "images": [
                    _write_image(image, image_paths, folder, manifest.image_px) if image else None
                    for image in sequence.images
                ],
            }
            writers[split].write_table(pa.Table.from_pylist([row], _SCHEMA))
            counts[split] += 1
    (folder / "README.md").write_text(_card(manifest, counts), encoding="utf-8")
    return counts


def _read_sequences(store_uri: str, manifest: Manifest) -> Iterator[tuple[str, EventSequence]]:
    """The split and the events of each sequence, in the order of the store."""
    for file in open_store(store_uri, manifest).files():
        yield from iterate_split_sequences(store_uri, manifest, file)


def _create_folder(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise DataError("the folder is not empty", where=str(folder), cause="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)


def _write_image(uri: str, image_paths: dict[str, str], folder: Path, image_px: int) -> str:
    """Write a stored image as PNG unless it was written before.

    Args:
        uri: Image of the store.
        image_paths: Path of each written image, relative to the folder; the new path is added.
        folder: Output folder.
        image_px: Side of the image, in pixels.

    Returns:
        The path of the image relative to the folder.
    """
    if uri not in image_paths:
        number = len(image_paths)
        image_paths[uri] = f"images/{number // 1000:04d}/{number:07d}.png"
        path = folder / image_paths[uri]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = load_image(uri, image_px=image_px)
        path.write_bytes(encode_image(pixels, image_px=image_px, file_format="PNG"))
    return image_paths[uri]


def _card(manifest: Manifest, counts: dict[str, int]) -> str:
    names = ", ".join(map(escape_markdown, manifest.type_names)) or "numbers"
    splits = "\n".join(
        f"  - split: {split}\n    path: data/{split}.parquet" for split in counts if counts[split]
    )
    rows = "\n".join(f"| {split} | {count:,} |" for split, count in counts.items())
    return f"""---
configs:
- config_name: default
  data_files:
{splits}
---
# Event sequences

One row per sequence: `times` in units of {manifest.seconds_per_unit:g} s, `types` (codes) and
`type_names`, `texts`, and `images`: the path of a {manifest.image_px}-pixel PNG file relative to
this folder, or null. {manifest.events_kept:,} events; types: {names}.

| split | sequences |
|---|---|
{rows}

Written from the event store `{manifest.fingerprint[:16]}` by `mmtpp convert`.
"""
