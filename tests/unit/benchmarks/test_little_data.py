"""The sequences that the benchmark of little data draws, and its report."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.quality.differences import SUMS_SCHEMA, table_path, write_sums
from benchmarks.quality.little_report import write_report
from benchmarks.quality.little_sets import (
    LITTLE,
    draw_sequences,
    held_out_sequences,
)
from mmtpp.core.events import EventSequence


def _sequences(*sizes: int) -> list[EventSequence]:
    return [
        EventSequence(
            f"{number:03d}",
            np.arange(size, dtype=np.float64),
            np.zeros(size, np.int16),
            tuple(map(str, range(size))),
            (None,) * size,
        )
        for number, size in enumerate(sizes)
    ]


def _ids(sequences: list[EventSequence]) -> list[str]:
    return [sequence.sequence_id for sequence in sequences]


def test_a_draw_is_stable_and_draws_differ():
    sequences = _sequences(*[10] * 100)
    first = draw_sequences(sequences, 0)
    assert len(first) == LITTLE.num_training == len(set(_ids(first)))
    assert _ids(draw_sequences(sequences[::-1], 0)) == _ids(first)
    assert set(_ids(draw_sequences(sequences, 1))) != set(_ids(first))


def test_events_of_a_drawn_sequence_are_consecutive():
    drawn = draw_sequences(_sequences(*[1000] * 40), 0)
    starts = [sequence.times[0] for sequence in drawn]
    for sequence, start in zip(drawn, starts, strict=True):
        assert sequence.times.tolist() == list(range(int(start), int(start) + LITTLE.max_events))
        assert sequence.texts[0] == f"{start:.0f}"
    assert len(set(starts)) > 10
    assert max(starts) <= 1000 - LITTLE.max_events


def test_sequences_without_a_target_are_not_drawn():
    assert _ids(draw_sequences(_sequences(1, 2, 1, 3), 0)) in (["001", "003"], ["003", "001"])
    assert len(held_out_sequences(_sequences(1, 2, 1, 3))) == 2


def test_held_out_sequences_are_bounded():
    held_out = held_out_sequences(_sequences(*[10] * 200, *[5000] * 200))
    assert len(held_out) == LITTLE.max_held_out
    assert {len(sequence) for sequence in held_out} == {10, LITTLE.max_held_out_events}


def test_the_report_subtracts_the_best_baseline_of_all_draws(tmp_path: Path):
    # nats per event of two sequences of 10 events, in two draws; Hawkes has the lowest mean
    nll = {
        "marginal": ([3.0, 5.0], [3.0, 5.0]),
        "poisson": ([4.0, 6.0], [4.0, 6.0]),
        "hawkes": ([2.0, 5.0], [2.0, 4.0]),
        "temporal expert": ([1.0, 4.0], [1.5, 4.5]),
    }
    records = []
    for name, draws in nll.items():
        for draw, values in enumerate(draws):
            kind = "expert" if name == "temporal expert" else "baseline"
            metrics = {"joint/nll_nats_per_event": float(np.mean(values)), "time/rmse_s": 2.0}
            head = {"set": "lines", "kind": kind, "name": name, "seed": draw}
            records.append({**head, "metrics": metrics, "targets": 20, "seconds": 1.0})
            sums = pa.table([["a", "b"], [10.0, 10.0], 10 * np.array(values)], schema=SUMS_SCHEMA)
            write_sums(sums, table_path(tmp_path / "sums", head))
    path = tmp_path / "little_data.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    write_report(path, tmp_path / "sums", tmp_path / "little.md", held_out="test")
    text = (tmp_path / "little.md").read_text()
    # by draw -1 and 0, so -0.5; by sequence -0.75 and -0.25
    [row] = [line for line in text.splitlines() if line.startswith("| lines |")]
    assert row.startswith("| lines | hawkes | -0.500 |")
    assert row.endswith("| -0.750 to -0.250 | 2 | -1.000, +0.000 |")
    assert "| hawkes | 2 | 3.250 ± 0.354 | 2.000 ± 0.000 |  | 1.0 |" in text
