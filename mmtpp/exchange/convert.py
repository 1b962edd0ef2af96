"""An event store as EasyTPP's JSON, or as a folder that Hugging Face ``datasets`` loads.

Sequences are written file after file of the store, so memory does not grow with it. Both formats
are read back by ``jobs/prepare.py``: ``source.kind = easytpp``, and ``columns``.
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
from mmtpp.data.store.contents import store_reader, stored_sequences
from mmtpp.data.store.images import load_image
from mmtpp.model.processor import encode_image
from mmtpp.storage.manifest import Manifest, load_manifest
from mmtpp.storage.markdown import as_plain

EASYTPP_NAMES = {"train": "train", "validation": "dev", "test": "test"}
COLUMNS = {
    "sequence": "sequence_id",
    "time": "times",
    "type": "types",
    "text": "texts",
    "image": "images",
}
"""``source.columns`` of the folder for ``datasets``."""
_SCHEMA = pa.schema(
    [
        ("sequence_id", pa.string()),
        ("times", pa.list_(pa.float64())),
        ("types", pa.list_(pa.int16())),
        ("type_names", pa.list_(pa.string())),
        ("texts", pa.list_(pa.string())),
        ("images", pa.list_(pa.string())),  # paths below the folder
    ]
)


def to_easytpp(store_uri: str, folder: Path) -> dict[str, int]:
    """Write ``train.json``, ``dev.json`` and ``test.json``: times and types, which is all that
    EasyTPP knows of an event.

    Args:
        store_uri: of the store.
        folder: local, empty or new.

    Returns:
        Sequences of each split.

    Raises:
        DataError: the folder holds something else.
        StorageError: there is no store.
    """
    manifest = load_manifest(store_uri)
    _make(folder)
    num_types = len(manifest.type_counts)
    counts = dict.fromkeys(EASYTPP_NAMES, 0)
    with ExitStack() as stack:
        files: dict[str, IO[str]] = {
            split: stack.enter_context((folder / f"{name}.json").open("w", encoding="utf-8"))
            for split, name in EASYTPP_NAMES.items()
        }
        for file in files.values():
            file.write("[")
        for split, sequence in _all(store_uri, manifest):
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
    """Write a folder for ``datasets.load_dataset``: a Parquet file a split, one row a sequence, the
    images beside them, and a card.

    Args:
        store_uri: of the store.
        folder: local, empty or new.

    Returns:
        Sequences of each split.

    Raises:
        DataError: the folder holds something else.
        StorageError: there is no store.
    """
    manifest = load_manifest(store_uri)
    _make(folder)
    (folder / "data").mkdir()
    counts = dict.fromkeys(EASYTPP_NAMES, 0)
    written: dict[str, str] = {}
    with ExitStack() as stack:
        writers = {
            split: stack.enter_context(
                pq.ParquetWriter(folder / "data" / f"{split}.parquet", _SCHEMA, compression="zstd")
            )
            for split in counts
        }
        for split, sequence in _all(store_uri, manifest):
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
                    _image(image, written, folder, manifest.image_px) if image else None
                    for image in sequence.images
                ],
            }
            writers[split].write_table(pa.Table.from_pylist([row], _SCHEMA))
            counts[split] += 1
    (folder / "README.md").write_text(_card(manifest, counts), encoding="utf-8")
    return counts


def _all(store_uri: str, manifest: Manifest) -> Iterator[tuple[str, EventSequence]]:
    for file in store_reader(store_uri, manifest).files():
        yield from stored_sequences(store_uri, manifest, file)


def _make(folder: Path) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise DataError("the folder is not empty", where=str(folder), cause="name a new one")
    folder.mkdir(parents=True, exist_ok=True)


def _image(name: str, written: dict[str, str], folder: Path, image_px: int) -> str:
    """Path of a frame, written once."""
    if name not in written:
        written[name] = f"images/{len(written) // 1000:04d}/{len(written):07d}.png"
        path = folder / written[name]
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = load_image(name, image_px=image_px)
        path.write_bytes(encode_image(pixels, image_px=image_px, kind="PNG"))
    return written[name]


def _card(manifest: Manifest, counts: dict[str, int]) -> str:
    names = ", ".join(map(as_plain, manifest.type_names)) or "numbers"
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

One row a sequence: `times` in units of {manifest.seconds_per_unit:g} s, `types` (codes) and
`type_names`, `texts`, and `images`, paths of {manifest.image_px}-pixel PNG files below this folder
or null. {manifest.events_kept:,} events; types: {names}.

| split | sequences |
|---|---|
{rows}

Written from the event store `{manifest.fingerprint[:16]}` by `python -m mmtpp convert`.
"""
