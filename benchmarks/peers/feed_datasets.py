"""``datasets``: finished rows in Parquet files, streamed from the S3 server through fsspec."""

import os
from collections.abc import Iterator
from typing import Any

from datasets import load_dataset
from torch.utils.data import DataLoader

from benchmarks.peers.feed_columns import STEP, Row, measure_feed
from benchmarks.peers.measured_process import run_as_trial

BUFFER = 1000  # rows of the buffer that shuffles; the default of datasets
SHUFFLE_SEED = 0


def run(
    uri: str,
    workers: int = 0,
    state: dict[str, Any] | None = None,
    state_after: int = 0,
    stop: int | None = None,
) -> dict[str, Any]:
    """Read an epoch, or continue one.

    Args:
        uri: Folder of the Parquet files.
        workers: Number of worker processes of the loader.
        state: State to continue from; None starts the epoch.
        state_after: Number of rows after which the state is taken; 0 takes none.
        stop: Number of rows to read; None reads the whole epoch.
    """
    states: list[dict[str, Any]] = []

    def open_feed() -> Iterator[Row]:
        rows = load_dataset(
            "parquet",
            data_files=f"{uri}/rows/*.parquet",
            split="train",
            streaming=True,
            storage_options={"client_kwargs": {"endpoint_url": os.environ["AWS_ENDPOINT_URL"]}},
        )
        rows = rows.shuffle(seed=SHUFFLE_SEED, buffer_size=BUFFER).with_format("numpy")
        if state is not None:
            rows.load_state_dict(state)
        count = 0
        torch_rows: Any = rows  # with the methods of torch's data sets
        for batch in DataLoader(torch_rows, STEP, num_workers=workers, collate_fn=list):
            count += len(batch)
            if state_after and count == state_after:
                states.append(rows.state_dict())
            yield from batch

    measured = measure_feed(open_feed, stop=stop)
    return {**measured, "state": states[0] if states else None}


if __name__ == "__main__":
    run_as_trial(run)
