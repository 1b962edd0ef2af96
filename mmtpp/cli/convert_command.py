"""``mmtpp convert``: write an event store in the format of another project."""

import argparse
import sys
from pathlib import Path

from mmtpp.exchange.convert import COLUMNS, to_datasets, to_easytpp

_FORMATS = {"easytpp": to_easytpp, "datasets": to_datasets}


def add_arguments(convert: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    columns = " ".join(f"--set source.columns.{key}={name}" for key, name in COLUMNS.items())
    convert.description = (
        "Writes an event store in the format of another project. easytpp: train.json, dev.json and "
        "test.json, with times and types only. datasets: Parquet files, images and a dataset card "
        "for datasets.load_dataset."
    )
    convert.epilog = (
        "jobs/prepare.py reads both formats, with --set source.kind=easytpp, or with "
        f"--set source.kind=columns {columns}."
    )
    convert.add_argument("store", help="event store: a local path or a remote URI")
    convert.add_argument("folder", type=Path, help="new local folder")
    convert.add_argument("--to", choices=_FORMATS, required=True, help="format to write")


def run(options: argparse.Namespace) -> None:
    """Write the folder and print its number of sequences.

    Raises:
        MmtppError: There is no store, or the folder is not empty.
    """
    num_sequences = _FORMATS[options.to](options.store, options.folder)
    counts = ", ".join(f"{split} {count:,}" for split, count in num_sequences.items())
    sys.stdout.write(f"written: {options.folder}; sequences: {counts}\n")
