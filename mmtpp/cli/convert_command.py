"""``python -m mmtpp convert STORE --to FORMAT FOLDER``."""

import argparse
import sys
from pathlib import Path

from mmtpp.exchange.convert import COLUMNS, to_datasets, to_easytpp

_FORMATS = {"easytpp": to_easytpp, "datasets": to_datasets}


def add_arguments(convert: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    columns = " ".join(f"--set source.columns.{key}={name}" for key, name in COLUMNS.items())
    convert.description = (
        "Writes an event store for other projects. easytpp: train.json, dev.json, test.json, times "
        "and types only. datasets: Parquet files, images and a card for datasets.load_dataset."
    )
    convert.epilog = (
        "Both are read back by jobs/prepare.py, with --set source.kind=easytpp, or "
        f"--set source.kind=columns {columns}."
    )
    convert.add_argument("store", help="event store; a local path or s3://")
    convert.add_argument("folder", type=Path, help="new local folder")
    convert.add_argument("--to", choices=_FORMATS, required=True, help="what to write")


def run(options: argparse.Namespace) -> None:
    """Write the folder and say what is in it.

    Raises:
        MmtppError: there is no store, or the folder is not empty.
    """
    counts = _FORMATS[options.to](options.store, options.folder)
    listed = ", ".join(f"{split} {count:,}" for split, count in counts.items())
    sys.stdout.write(f"written: {options.folder}; sequences: {listed}\n")
