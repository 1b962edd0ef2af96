"""Branched rows for tests: events, windows in one row, and the tokens that a token sees."""

from dataclasses import fields, replace

import numpy as np

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import BranchedTokens
from mmtpp.core.representation.row import HISTORY, Branches, PackedRow
from mmtpp.core.representation.tokens import Modality
from tests.helpers.tiny_models import CELLS, IMAGE_PX, tiny_vocabulary

VOCABULARY = tiny_vocabulary()


def events_of(size: int, seed: int) -> Events:
    """Random events with texts, images and compressed runs."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 6, size)
    intervals = rng.exponential(size=size)
    return Events(
        intervals=intervals,
        types=rng.integers(0, 9, size).astype(np.int16),
        text_ids=rng.integers(0, 256, lengths.sum()).astype(np.int32),
        text_offsets=np.append(0, lengths.cumsum()).astype(np.int64),
        frames=rng.integers(-1, 3, size).astype(np.int32),
        similar=np.append(False, rng.random(size - 1) < 0.4),
        times=400_000.0 + np.cumsum(intervals),
    )


def row_of(parts: list[BranchedTokens]) -> PackedRow:
    """The windows as segments of one row."""
    sizes = [len(part.tokens.ids) for part in parts]
    ids = np.concatenate([part.tokens.ids for part in parts])
    rng = np.random.default_rng(0)
    return PackedRow(
        sample_id=0,
        input_ids=ids,
        modality=np.concatenate([part.tokens.modality for part in parts]),
        segment=np.repeat(np.arange(len(parts), dtype=np.int32), sizes),
        event=np.zeros(len(ids), dtype=np.int32),
        may_be_label=np.ones(len(ids), dtype=np.bool_),
        frames=rng.integers(0, 256, (3, IMAGE_PX, IMAGE_PX, 3), dtype=np.uint8),
        image_frame=np.concatenate([part.tokens.frames for part in parts]),
        event_type=np.zeros(1, dtype=np.int16),
        event_is_target=np.ones(1, dtype=np.bool_),
        branches=Branches(
            *(
                np.concatenate([getattr(part.branches, field.name) for part in parts])
                for field in fields(Branches)
            )
        ),
    )


def row_alone(row: PackedRow, tokens: np.ndarray) -> PackedRow:
    """A row without branches from some tokens of a row, with the images among these tokens."""
    pads = row.modality == Modality.MASKED
    first = pads & (row.input_ids == VOCABULARY.special("<|image_pad|>"))
    image = (np.cumsum(first) - 1) // CELLS
    shown = np.unique(image[tokens][first[tokens]])
    return replace(
        row,
        input_ids=row.input_ids[tokens],
        modality=row.modality[tokens],
        segment=np.zeros(len(tokens), dtype=np.int32),
        event=row.event[tokens],
        may_be_label=row.may_be_label[tokens],
        image_frame=row.image_frame[shown],
        branches=None,
    )


def path_of(part: BranchedTokens, place: int) -> np.ndarray:
    """Positions that a token sees, and its own: history, the branches it continues, its branch."""
    branches, path = part.branches, []
    branch = int(branches.branch[place])
    if branch == HISTORY:
        return np.arange(place + 1)
    visible, last = int(branches.visible[place]), int(place)
    while branch != HISTORY:
        positions = np.flatnonzero(branches.branch == branch)
        path = [*positions[positions <= last].tolist(), *path]
        branch, last = int(branches.parent[positions[0]]), len(branches.branch)
    return np.array([*range(visible), *path])
