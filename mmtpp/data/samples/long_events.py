"""The events of a store that do not fit the context under the present settings."""

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from mmtpp.core.representation.text_truncation import truncate_texts
from mmtpp.core.representation.tokens import TokenIds
from mmtpp.data.samples.long_texts import MAX_EXAMPLES
from mmtpp.data.samples.map_files import map_files
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.store.store_reader import StoreReader

_SCHEMA = pa.schema([("count", pa.int64()), ("examples", pa.list_(pa.string()))])


@dataclass(frozen=True, slots=True)
class LongEvents:
    """Events that do not fit the context.

    Attributes:
        count: Number of these events.
        examples: Sequence, position and number of tokens of the first few.
    """

    count: int
    examples: tuple[str, ...]


def find_long_events(settings: SampleSettings, token_ids: TokenIds) -> LongEvents:
    """Find the events whose tokens alone exceed ``settings.full_tokens``.

    Args:
        settings: Template, context and store; split and compression do not matter.
        token_ids: Token ids of the vocabulary.
    """
    tables = map_files(
        _find_in_files,
        StoreReader(settings.store).files(),
        {"settings": settings, "token_ids": token_ids},
        machine_labels=settings.store.machine_labels,
    )
    rows = pa.concat_tables(tables).to_pylist()
    examples = [example for row in rows for example in row["examples"]]
    return LongEvents(sum(row["count"] for row in rows), tuple(examples[:MAX_EXAMPLES]))


def _find_in_files(files: pa.Table, *, settings: SampleSettings, token_ids: TokenIds) -> pa.Table:
    template, reader = settings.build_template(token_ids), StoreReader(settings.store)
    max_text_tokens = settings.max_text_tokens or math.inf

    def may_have_one(file: str) -> bool:
        longest = int(min(max_text_tokens, reader.longest_text(file)))
        return template.max_cost_alone(longest) > settings.full_tokens

    count, examples = 0, []
    for sequence in reader.sequences(filter(may_have_one, files["file"].to_pylist())):
        tokens = template.costs_alone(
            truncate_texts(sequence.events, settings.max_text_tokens or None)
        )
        indices = np.flatnonzero(tokens > settings.full_tokens)
        count += len(indices)
        examples += [
            f"sequence {sequence.sequence_id!r}, event {index + 1}: {tokens[index]:,} tokens"
            for index in indices[: MAX_EXAMPLES - len(examples)].tolist()
        ]
    return pa.Table.from_pylist([{"count": count, "examples": examples}], _SCHEMA)
