"""A plan: which events make which sample."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from mmtpp.data.samples.long_texts import LongTexts
from mmtpp.storage.parquet import write_table


@dataclass(frozen=True, slots=True)
class Plan:
    """Which events make which sample.

    Attributes:
        windows: one row a window, ``WINDOW_SCHEMA``.
        samples: window indices of each sample.
        num_events: scored or not, all events in the windows, repeated context included.
        num_similar: of those, written as one token.
        fingerprint: of settings and store.
        long_texts: texts and questions that did not fit.
    """

    windows: pa.Table
    samples: list[list[int]]
    num_events: int
    num_similar: int
    fingerprint: str
    long_texts: LongTexts = field(default_factory=LongTexts)

    def describe(self, max_tokens: int) -> str:
        """One line on how well the samples are filled."""
        tokens = int(np.sum(self.windows["num_tokens"].to_numpy()))
        fill = tokens / (len(self.samples) * max_tokens)
        return (
            f"{len(self.samples):,} samples of {max_tokens} tokens from {len(self.windows):,} "
            f"windows, {fill:.1%} full; {self.num_events:,} events, "
            f"{self.num_similar:,} of them compressed"
        )

    def figures(self) -> dict[str, float]:
        """What compression and windows make of the events, as metrics of a run."""
        tokens = float(np.sum(self.windows["num_tokens"].to_numpy()))
        return {
            "data/events": float(self.num_events),
            "data/samples": float(len(self.samples)),
            "data/compressed_fraction": self.num_similar / self.num_events,
            "data/tokens_per_event": tokens / self.num_events,
            "data/events_per_context": self.num_events / len(self.samples),
            **self.long_texts.figures(),
        }

    def save(self, uri: str) -> None:
        """Write the plan as one Parquet file."""
        sample_of = np.empty(len(self.windows), dtype=np.int64)
        order = np.empty(len(self.windows), dtype=np.int64)
        for index, windows in enumerate(self.samples):
            sample_of[windows] = index
            order[windows] = np.arange(len(windows))
        table = self.windows.append_column("sample", pa.array(sample_of))
        table = table.append_column("place", pa.array(order))
        table = table.replace_schema_metadata(
            {
                "fingerprint": self.fingerprint,
                "num_events": str(self.num_events),
                "num_similar": str(self.num_similar),
                "long_texts": self.long_texts.as_json(),
            }
        )
        write_table(uri, table)


def samples_table(plan: Plan, sample_ids: np.ndarray) -> pa.Table:
    """The input of ``Assembler`` for these samples, in this order."""
    windows = [plan.samples[sample] for sample in sample_ids.tolist()]
    flat = np.array([window for part in windows for window in part], dtype=np.int64)
    offsets = np.cumsum([0, *map(len, windows)])
    taken = plan.windows.take(pa.array(flat)).combine_chunks()
    struct = pa.StructArray.from_arrays(
        [column.combine_chunks() for column in taken.columns], names=taken.column_names
    )
    listed = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), struct)
    return pa.table({"sample_id": pa.array(sample_ids, pa.int64()), "windows": listed})
