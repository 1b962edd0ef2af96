"""Compare one pass over a history and its branches with separate passes for the branches."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mmtpp.core.events import Events
from mmtpp.core.representation.branches import BranchedTokens, lay_out_branches
from mmtpp.core.representation.row import HISTORY, Branches, Row
from mmtpp.core.representation.tasks import EVENT_TASKS
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.tokens import Modality
from mmtpp.model.event_model import EventModel
from tests.parity.tiny import CELLS, IMAGE_PX, batcher, nll, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
TEMPLATE = Template(
    VOCABULARY.token_ids(),
    TemplateSettings("compact", "on_change", image_tokens=CELLS, run_encoding="run_length"),
)


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


def row_of(parts: list[BranchedTokens]) -> Row:
    """The windows as segments of one row."""
    sizes = [len(part.tokens.ids) for part in parts]
    ids = np.concatenate([part.tokens.ids for part in parts])
    rng = np.random.default_rng(0)
    return Row(
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


def row_alone(row: Row, tokens: np.ndarray) -> Row:
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


@pytest.fixture(scope="module")
def model() -> EventModel:
    return EventModel(tiny_backbone(VOCABULARY))


def test_a_branch_has_the_likelihoods_of_a_separate_row(model: EventModel):
    targets = [[3, 4, 5, 11], list(range(1, 20)), [2]]
    parts = [
        lay_out_branches(
            TEMPLATE,
            events_of(20, seed),
            chosen,
            tasks=EVENT_TASKS,
            first_bytes=[0, 64] if seed == 1 else [],
        )
        for seed, chosen in enumerate(targets)
    ]
    row = row_of(parts)
    assert row.branches is not None
    labels = row.label_positions()
    together = dict(zip(labels.tolist(), nll(model, VOCABULARY, row).tolist(), strict=True))
    compared = 0
    start = 0
    for part in parts:
        branch = part.branches.branch
        for index in range(HISTORY, int(branch.max()) + 1):
            path = path_of(part, int(np.flatnonzero(branch == index)[-1]))
            alone = row_alone(row, start + path)
            scores = nll(model, VOCABULARY, alone).tolist()
            places = start + path[alone.label_positions()]
            for place, score in zip(places.tolist(), scores, strict=True):
                if branch[place - start] == index and place in together:
                    # measured 2026-11-23: at most 3.1e-5, with losses up to 101 nats
                    assert score == pytest.approx(together[place], abs=1e-4)
                    compared += 1
        start += len(branch)
    assert len(labels) == compared
    answers = np.flatnonzero(np.concatenate([part.is_answer for part in parts]))
    assert set(answers.tolist()) <= together.keys()


def test_gradients_are_those_of_separate_rows(model: EventModel):
    """The loss of all targets in one row has the gradients of separate rows."""
    part = lay_out_branches(TEMPLATE, events_of(8, 5), [2, 5, 7], tasks=["time"])
    row = row_of([part])
    row = replace(row, may_be_label=part.is_answer)
    weight = model.base.model.language_model.layers[0].self_attn.k_proj.weight  # pyright: ignore[reportAttributeAccessIssue]
    gradients = []
    branch = part.branches.branch
    ends = [np.flatnonzero(branch == index)[-1] for index in np.unique(branch[part.is_answer])]
    alone = [row_alone(row, path_of(part, int(end))) for end in ends]
    assert len(alone) == 3
    for rows in ([row], alone):
        weight.grad = None
        torch.stack([model(batcher(VOCABULARY)(alone))[0].sum() for alone in rows]).sum().backward()
        gradients.append(weight.grad)
    assert gradients[0].abs().max() > 0.1
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-3, atol=1e-4)
