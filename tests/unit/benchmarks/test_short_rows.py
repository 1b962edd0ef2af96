"""Packed rows and padded batches of the benchmark hold the same sequences."""

import numpy as np
import pytest
import torch

from benchmarks.short_rows import ROW_TOKENS, ROWS_PER_STEP, Case, batches_of, packed_rows
from mmtpp.core.representation.tokens import Tokens
from tests.helpers.tiny_models import tiny_vocabulary

LENGTHS = [ROW_TOKENS // 2] * (2 * ROWS_PER_STEP - 1) + [9, 5, 7, 6, 3]


def _case() -> Case:
    rng = np.random.default_rng(0)
    tokens = [
        Tokens(
            ids=rng.integers(1, 200, length).astype(np.int32),
            modality=np.ones(length, dtype=np.uint8),
            event=np.zeros(length, dtype=np.int32),
            frames=np.zeros(0, dtype=np.int32),
        )
        for length in LENGTHS
    ]
    return Case("a case", tokens, tiny_vocabulary(), (4,), 1.0)


def _sequences(case: Case) -> list[list[int]]:
    return sorted(tokens.ids.tolist() for tokens in case.tokens)


def test_rows_hold_every_sequence_as_a_segment_with_all_labels():
    case = _case()
    rows = packed_rows(case)
    assert len(rows) == ROWS_PER_STEP
    held = [
        row.input_ids[row.segment == segment].tolist()
        for row in rows
        for segment in range(int(row.segment.max()) + 1)
    ]
    assert sorted(held) == _sequences(case)
    assert sum(len(row.label_positions()) for row in rows) == sum(LENGTHS) - len(LENGTHS)


@pytest.mark.parametrize("grouped", [False, True])
def test_batches_hold_every_sequence_with_all_labels(grouped: bool):
    case = _case()
    batches = batches_of(case, 4, grouped=grouped)
    assert sorted(len(batch["input_ids"]) for batch in batches) == [4, 4, 4]
    held = []
    padding = 0
    for batch in batches:
        mask = batch["attention_mask"].bool()
        assert torch.equal(batch["labels"], torch.where(mask, batch["input_ids"], -100))
        held += [ids[real].tolist() for ids, real in zip(batch["input_ids"], mask, strict=True)]
        padding += int((~mask).sum())
    assert sorted(held) == _sequences(case)
    # sorted by length: four halves of a row, three halves and 9 tokens, and 7, 6, 5 and 3 tokens
    smallest = (ROW_TOKENS // 2 - 9) + (1 + 2 + 4)
    assert padding == smallest if grouped else padding > smallest
