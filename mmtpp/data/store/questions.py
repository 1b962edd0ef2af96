"""The questions about whole sequences in a store."""

from typing import NamedTuple

import pyarrow as pa

from mmtpp.data.store.layout import QUESTION_COLUMNS


class AskedQuestion(NamedTuple):
    """A question about a sequence and its answer, as read and as tokens."""

    question: str
    answer: str
    question_ids: list[int]
    answer_ids: list[int]


def read_questions(table: pa.Table) -> list[tuple[AskedQuestion, ...]]:
    """Read the questions of each row of a table that has ``QUESTION_COLUMNS``."""
    columns = [table[name].to_pylist() for name in QUESTION_COLUMNS]
    return [
        tuple(AskedQuestion(*fields) for fields in zip(*row, strict=True))
        for row in zip(*columns, strict=True)
    ]
