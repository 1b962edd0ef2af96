"""Compare one pass over a history and its branches with separate passes for the branches."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mmtpp.core.representation.branches import lay_out_branches
from mmtpp.core.representation.row import HISTORY
from mmtpp.core.representation.tasks import EVENT_TASKS
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.model.event_model import EventModel
from tests.helpers.tiny_models import CELLS, batcher, nll, tiny_backbone, tiny_vocabulary
from tests.parity.branched_rows import events_of, path_of, row_alone, row_of

VOCABULARY = tiny_vocabulary()
TEMPLATE = Template(
    VOCABULARY.token_ids(),
    TemplateSettings("compact", "on_change", image_tokens=CELLS, run_encoding="run_length"),
)


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


@pytest.mark.parametrize("encoding", ["token", "run_length"])
def test_the_last_tokens_of_a_row_see_their_paths(encoding: str):
    settings = TemplateSettings("compact", "none", image_tokens=CELLS, run_encoding=encoding)
    template = Template(tiny_vocabulary().token_ids(), settings, has_questions=True)
    laid = lay_out_branches(
        template, events_of(9, 2), [9], tasks=["time", "type"], first_bytes=[60, 61, 62]
    )
    branches, size = laid.branches, len(laid.tokens.ids)
    for first in (0, 11, branches.num_history):
        for end in (branches.num_history, size):
            sees = branches.sees(first, end)
            assert sees.shape == (end - first, end)
            for token in range(first, end):
                assert np.flatnonzero(sees[token - first]).tolist() == path_of(laid, token).tolist()
