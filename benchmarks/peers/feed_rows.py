"""Rows that all feeds deliver: danmaku in an event store, and the same packed rows as Parquet.

The store is what this project's feed reads: it assembles the rows from events. The Parquet files
hold the finished rows, for ``datasets`` and for the writer of MosaicML Streaming.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import ray

from benchmarks.peers.feed_columns import COLUMNS
from benchmarks.peers.measured_process import run_as_trial
from benchmarks.replicate import publish, read_videos
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import store_vocabulary
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import write_table
from mmtpp.storage.paths import join

ROWS_PER_FILE = 256


def configuration(uri: str, max_tokens: int, cache: str) -> RunConfig:
    """Settings of the store and of the rows.

    Args:
        uri: Folder of everything that this part writes.
        max_tokens: Length of a packed row, in tokens.
        cache: Folder of the disk cache.
    """
    return config_from_tree(
        {
            "source": {"uri": join(uri, "raw")},
            "store": {"uri": join(uri, "store"), "cache_path": cache},
            "template": {"style": "minimal", "images": "none"},
            "window": {"max_tokens": max_tokens},
        }
    )


def open_samples(config: RunConfig) -> tuple[SampleSettings, Vocabulary]:
    """Settings of the training samples, and the vocabulary of the store."""
    manifest = load_manifest(config.store.uri)
    vocabulary = store_vocabulary(config.store.uri, manifest)
    return build_sample_settings(config.sample_sections, manifest, split="train"), vocabulary


def run(uri: str, folder: str, copies: int, max_tokens: int, cache: str) -> dict[str, Any]:
    """Write the store, the plan and the finished rows.

    Args:
        uri: Folder of everything that this part writes.
        folder: Folder of the real danmaku.
        copies: Number of copies of all videos.
        max_tokens: Length of a packed row, in tokens.
        cache: Folder of the disk cache.
    """
    ray.init(log_to_driver=False)
    videos = read_videos(Path(folder))
    publish(join(uri, "raw"), videos, range(copies), with_images=False)
    config = configuration(uri, max_tokens, cache)
    started = time.perf_counter()
    prepare(config)
    settings, vocabulary = open_samples(config)
    plan = make_plan(settings, vocabulary.token_ids())
    plan.save(join(uri, "plan.parquet"))
    ours_s = time.perf_counter() - started
    assemble = Assembler(settings, vocabulary.token_ids())
    ids = np.arange(plan.num_samples)
    num_tokens, started = 0, time.perf_counter()
    for start in range(0, len(ids), ROWS_PER_FILE):
        rows = assemble(samples_table(plan, ids[start : start + ROWS_PER_FILE])).select(COLUMNS)
        num_tokens += len(pa.chunked_array(rows["input_ids"]).combine_chunks().flatten())
        write_table(join(uri, f"rows/part-{start:06d}.parquet"), rows)
    return {
        "rows": len(ids),
        "tokens": num_tokens,
        "events": plan.num_events,
        "prepare_s": ours_s,
        "finished_rows_s": time.perf_counter() - started,
    }


if __name__ == "__main__":
    run_as_trial(run)
