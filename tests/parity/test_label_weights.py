"""Weights of labels by modality and task, computed by hand."""

from dataclasses import replace

import numpy as np

from mmtpp.config.schema import LossWeights, TaskWeights
from mmtpp.core.representation.branches import lay_out_branches
from mmtpp.core.representation.tasks import EVENT_TASKS, TASKS
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.train.step import LabelWeights
from tests.helpers.tiny_models import CELLS, random_row, tiny_vocabulary
from tests.parity.branched_rows import events_of, row_of

VOCABULARY = tiny_vocabulary()
MODALITIES = LossWeights(time=2.0, type=3.0, text=0.5, control=0.25)


def test_stage_one_weighs_modalities_only():
    row = random_row(VOCABULARY, [30], seed=0)
    label_weights = LabelWeights(MODALITIES, TaskWeights(time=7.0))
    expected = [0, 2.0, 3.0, 0.5, 0.25]
    modality = row.modality[row.label_positions()]
    assert label_weights(row).tolist() == [expected[code] for code in modality.tolist()]


def test_stage_two_weighs_tasks_too():
    settings = TemplateSettings("minimal", "none", image_tokens=CELLS, time_bytes=2)
    template = Template(VOCABULARY.token_ids(), settings, has_questions=True)
    laid = lay_out_branches(template, events_of(5, seed=1), [2, 4], tasks=EVENT_TASKS)
    row = replace(row_of([laid]), may_be_label=laid.is_answer)
    weights = LabelWeights(MODALITIES, TaskWeights(time=1.0, type=0.5, joint=4.0, text=10.0))(row)
    task = laid.branches.task[row.label_positions()]
    assert set(weights[task == TASKS["time"]].tolist()) == {2.0}
    assert set(weights[task == TASKS["type"]].tolist()) == {1.5}
    assert set(weights[task == TASKS["joint"]].tolist()) == {12.0}
    assert set(weights[task == TASKS["text"]].tolist()) == {
        5.0,
        2.5,
    }  # words and the end of the text
    # events of the history are labels only where they are scored
    everything = replace(row, may_be_label=np.ones(len(row.may_be_label), dtype=np.bool_))
    weights = LabelWeights(MODALITIES, TaskWeights(history=0.1))(everything)
    in_history = laid.branches.branch[everything.label_positions()] == -1
    assert {0.2, 0.3, 0.05, 0.025} >= set(np.round(weights[in_history], 6).tolist())
    assert weights[in_history].min() > 0
