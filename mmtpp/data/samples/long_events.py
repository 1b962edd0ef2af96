"""Events of a store that do not fit the context by the present settings."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.core.text_truncation import truncate_texts
from mmtpp.core.tokens import TokenIds
from mmtpp.data.samples.long_texts import MAX_EXAMPLES
from mmtpp.data.samples.over_files import over_files
from mmtpp.data.samples.plan import AssembleSettings
from mmtpp.data.store.store_reader import StoreReader

_SCHEMA = pa.schema([("count", pa.int64()), ("examples", pa.list_(pa.string()))])


@dataclass(frozen=True, slots=True)
class LongEvents:
    """Events that do not fit the context.

    Attributes:
        count: number of them.
        examples: sequence, position and tokens of the first few.
    """

    count: int
    examples: tuple[str, ...]


def find_long_events(settings: AssembleSettings, token_ids: TokenIds) -> LongEvents:
    """Find the events whose tokens alone exceed ``settings.max_tokens``.

    Args:
        settings: template, context and store; neither split nor compression matters.
        token_ids: of the vocabulary.
    """
    tables = over_files(
        _of_files,
        StoreReader(settings.store).files(),
        {"settings": settings, "token_ids": token_ids},
        machine_labels=settings.store.machine_labels,
    )
    rows = pa.concat_tables(tables).to_pylist()
    examples = [example for row in rows for example in row["examples"]]
    return LongEvents(sum(row["count"] for row in rows), tuple(examples[:MAX_EXAMPLES]))


def _of_files(files: pa.Table, *, settings: AssembleSettings, token_ids: TokenIds) -> pa.Table:
    template = settings.writer(token_ids)
    count, examples = 0, []
    for sequence in StoreReader(settings.store).sequences(files["file"].to_pylist()):
        tokens = template.costs_alone(
            truncate_texts(sequence.events, settings.max_text_tokens or None)
        )
        places = np.flatnonzero(tokens > settings.max_tokens)
        count += len(places)
        examples += [
            f"sequence {sequence.sequence_id!r}, event {place}: {tokens[place]:,} tokens"
            for place in places[: MAX_EXAMPLES - len(examples)].tolist()
        ]
    return pa.Table.from_pylist([{"count": count, "examples": examples}], _SCHEMA)
