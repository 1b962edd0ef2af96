"""MosaicML Streaming: finished rows in shards of its format MDS on the S3 server."""

import json
import os
import tempfile
from collections.abc import Iterator
from typing import Any

import pyarrow.fs as pafs
import pyarrow.parquet as pq

from benchmarks.peers.feed_columns import STEP, TYPES, Row, measure_feed
from benchmarks.peers.measured_process import Meter, run_as_trial
from benchmarks.peers.stand_ins import import_with_stand_ins

SHUFFLE_SEED = 0


TORCHVISION = (
    "torchvision",
    "torchvision.datasets:VisionDataset",
    "torchvision.transforms",
    "torchvision.transforms.functional:to_tensor",
)


def _import_streaming() -> Any:
    """Import Streaming; only its data sets of images use torchvision."""
    os.environ["S3_ENDPOINT_URL"] = os.environ["AWS_ENDPOINT_URL"]
    return import_with_stand_ins("streaming", TORCHVISION)


def write(uri: str) -> dict[str, Any]:
    """Write the finished rows as MDS shards; Streaming's default size of shards.

    Args:
        uri: Folder of the rows.
    """
    streaming = _import_streaming()
    meter = Meter()
    columns = {name: "int" if name == "sample_id" else f"ndarray:{kind}" for name, kind in _kinds()}
    files = pafs.S3FileSystem(
        endpoint_override=os.environ["AWS_ENDPOINT_URL"].removeprefix("http://"), scheme="http"
    )
    folder = uri.removeprefix("s3://") + "/rows"
    parts = sorted(info.path for info in files.get_file_info(pafs.FileSelector(folder)))
    count = 0
    with streaming.MDSWriter(out=f"{uri}/mds", columns=columns) as writer:
        for path in parts:
            table = pq.read_table(path, filesystem=files)
            for index in range(len(table)):
                row = {"sample_id": table["sample_id"][index].as_py()}
                for name, kind in _kinds():
                    if name != "sample_id":
                        values = table[name][index].values.to_numpy(zero_copy_only=False)
                        row[name] = values.astype(kind)
                writer.write(row)
                count += 1
    return {"rows": count, "seconds": meter.wall_s, "cpu_s": meter.cpu_s}


def _kinds() -> list[tuple[str, str]]:
    """Columns with the types of MDS, which has no array of truth values."""
    return [(name, "uint8" if kind == "bool" else kind) for name, kind in TYPES.items()]


def run(
    uri: str,
    workers: int = 0,
    state: dict[str, Any] | None = None,
    state_after: int = 0,
    stop: int | None = None,
    writes: bool = False,
) -> dict[str, Any]:
    """Read an epoch, or continue one; the local copy of the shards is empty at the start.

    Args:
        uri: Folder of the MDS shards.
        workers: Number of worker processes of the loader.
        state: State to continue from; None starts the epoch.
        state_after: Number of rows after which the state is taken; 0 takes none.
        stop: Number of rows to read; None reads the whole epoch.
        writes: Whether the shards are written instead.
    """
    if writes:
        return write(uri)
    streaming = _import_streaming()
    states: list[dict[str, Any]] = []
    copy = tempfile.TemporaryDirectory()

    def open_feed() -> Iterator[Row]:
        dataset = streaming.StreamingDataset(
            remote=f"{uri}/mds",
            local=copy.name,
            shuffle=True,
            shuffle_seed=SHUFFLE_SEED,
            batch_size=STEP,
            num_canonical_nodes=1,
        )
        loader = streaming.StreamingDataLoader(
            dataset, batch_size=STEP, num_workers=workers, collate_fn=list
        )
        if state is not None:
            loader.load_state_dict(state)
        count = 0
        for batch in loader:
            count += len(batch)
            if state_after and count == state_after:
                states.append(loader.state_dict())
            yield from batch

    with copy:
        measured = measure_feed(open_feed, stop=stop)
    return {**measured, "state": json.loads(json.dumps(states[0])) if states else None}


if __name__ == "__main__":
    run_as_trial(run)
