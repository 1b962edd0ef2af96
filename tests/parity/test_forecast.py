"""Forecasts read off one forward pass against a forward pass for every question."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmtpp.core.branches import lay_out_branches
from mmtpp.core.interval_forecasts import IntervalRange
from mmtpp.core.row import Row
from mmtpp.core.tasks import EVENT_TASKS, TASKS
from mmtpp.core.template import Template, TemplateSettings
from mmtpp.core.timecode import encode_intervals
from mmtpp.evaluate.model_actor import AssembledRow
from mmtpp.evaluate.targets import target_table
from mmtpp.model.event_model import EventModel
from mmtpp.model.next_event_scores import RowForecaster
from tests.parity.test_branched import events_of, path_of, row_alone, row_of
from tests.parity.tiny import CELLS, batcher, tiny_backbone, tiny_vocabulary

VOCABULARY = tiny_vocabulary()
IDS = VOCABULARY.token_ids()
CODES = [0, 3, 5, 8]
TYPE_IDS = VOCABULARY.type_ids(CODES)


def _log_probabilities(model: EventModel, row: Row, tokens: np.ndarray) -> np.ndarray:
    """(V,) after these tokens alone, by Hugging Face's own head."""
    with torch.no_grad():
        hidden = model.hidden(batcher(VOCABULARY)(row_alone(row, tokens)))[-1]
        return model.base.lm_head(hidden).double().log_softmax(-1).numpy()


def _among(scores: np.ndarray, ids: list[int]) -> np.ndarray:
    """Probabilities when only these can be."""
    chosen = np.exp(scores[ids])
    return chosen / chosen.sum()


@pytest.mark.parametrize(("num_bytes", "style"), [(2, "dense"), (4, "compact"), (3, "paper")])
def test_forecasts_are_those_of_separate_rows(num_bytes: int, style: str):
    model = EventModel(tiny_backbone(VOCABULARY))
    settings = TemplateSettings(style, "on_change", image_tokens=CELLS, time_bytes=num_bytes)
    template = Template(IDS, settings, has_questions=True)
    grid = IntervalRange(0.02, 5.0, 1e-6).grid(num_bytes=num_bytes)
    sequence, targets = events_of(9, seed=3), [2, 5, 8, 9]  # the last is yet to come
    sequence = replace(sequence, types=np.resize(np.array(CODES, np.int16), 9))
    laid = lay_out_branches(
        template, sequence, targets, tasks=EVENT_TASKS, expansions=grid.first_bytes
    )
    row = replace(
        row_of([laid]),
        questions=laid.questions,
        event=laid.tokens.event,
        scored=laid.is_answer,
    )
    found = RowForecaster(model, IDS, TYPE_IDS, grid)(row, batcher(VOCABULARY)(row))
    assert found.time is not None
    assert found.type is not None
    assert found.joint is not None
    assert found.text is not None
    assert targets == found.time.event.tolist() == found.type.event.tolist()
    assert targets[:3] == found.joint.event.tolist() == found.text.event.tolist()

    time_at = laid.questions.at[laid.questions.task == TASKS["time"]]
    type_at = laid.questions.at[laid.questions.task == TASKS["type"]]
    joint_at = laid.questions.at[laid.questions.task == TASKS["joint"]]
    first_ids, byte_ids = list(IDS.byte_ids[:128]), list(IDS.byte_ids)
    codes = encode_intervals(sequence.intervals, num_bytes=num_bytes)
    for place, target in enumerate(targets):
        asked = path_of(laid, time_at[place])
        first = _among(_log_probabilities(model, row, asked), first_ids)
        expanded = []
        offset = int(laid.questions.expansion[laid.questions.task == TASKS["time"]][place])
        for index, byte in enumerate(grid.first_bytes):
            after = _log_probabilities(model, row, path_of(laid, offset + index))
            expanded.append(first[byte] * _among(after, byte_ids))
        mass = np.concatenate(expanded)
        inside = mass.sum() + first[0]
        assert found.time.interval.outside[place] == pytest.approx(1 - inside, abs=1e-4)
        np.testing.assert_allclose(
            found.time.interval.mass[place, 1:], mass / inside, rtol=2e-3, atol=1e-7
        )
        assert found.time.interval.zero[place] == pytest.approx(first[0] / inside, rel=2e-3)
        own = _among(_log_probabilities(model, row, path_of(laid, type_at[place])), TYPE_IDS)
        np.testing.assert_allclose(np.exp(found.type.log_probability[place]), own, rtol=2e-3)
        if target == 9:
            assert np.isnan(found.time.code_nll[place])
            continue
        own = _among(_log_probabilities(model, row, path_of(laid, joint_at[place])), TYPE_IDS)
        np.testing.assert_allclose(np.exp(found.joint.log_probability[place]), own, rtol=2e-3)
        nll = -np.log(first[codes[target, 0]])
        answer = np.flatnonzero(
            (laid.branches.task == TASKS["time"]) & (laid.tokens.event == target)
        )[:num_bytes]
        for index in range(1, num_bytes):
            after = _log_probabilities(model, row, path_of(laid, answer[index - 1]))
            nll -= np.log(_among(after, byte_ids)[codes[target, index]])
        assert found.time.code_nll[place] == pytest.approx(nll, abs=1e-3)
        told = np.flatnonzero((laid.branches.task == TASKS["text"]) & (laid.tokens.event == target))
        text = 0.0
        for at in told.tolist():
            before = row.predecessors()[at]
            text -= _log_probabilities(model, row, path_of(laid, before))[row.input_ids[at]]
        assert found.text.nll[target // 3] == pytest.approx(text, rel=1e-4)
        assert len(told) == found.text.num_tokens[target // 3]


def test_an_interval_off_the_grid_has_the_density_of_its_code():
    model = EventModel(tiny_backbone(VOCABULARY))
    settings = TemplateSettings("dense", "none", image_tokens=CELLS, time_bytes=2)
    grid = IntervalRange(0.5, 1.0, 1e-6).grid(num_bytes=2)
    sequence = replace(
        events_of(3, seed=1),
        intervals=np.array([0.0, 0.75, 70.0]),
        types=np.array([3, 5, 0], np.int16),
        similar=np.zeros(3, np.bool_),
    )
    laid = lay_out_branches(
        Template(IDS, settings, has_questions=True),
        sequence,
        [1, 2],
        tasks=["time"],
        expansions=grid.first_bytes,
    )
    row = replace(
        row_of([laid]),
        questions=laid.questions,
        event=laid.tokens.event,
        scored=laid.is_answer,
        event_type=sequence.types,
        event_is_target=np.ones(3, np.bool_),
    )
    found = RowForecaster(model, IDS, TYPE_IDS, grid)(row, batcher(VOCABULARY)(row))
    columns = {
        "segment": [0, 0, 0],
        "position": [7, 8, 9],
        "time": [0.0, 0.75, 70.75],
        "interval": sequence.intervals,
        "previous_interval": [np.inf, 0.0, 0.75],
        "previous_type": np.array([3, 3, 5], np.int16),
    }
    assembled = pa.table(
        {"sequences": [["s"]], **{f"event_{name}": [each] for name, each in columns.items()}}
    )
    sample = AssembledRow(row, assembled)
    table = target_table(sample, found, np.array(CODES, np.int16), tick=1e-9, num_bytes=2)
    assert table["position"].to_pylist() == [8, 9]
    assert table["context"].to_pylist() == [1, 2]
    assert found.time is not None
    nll = table["time_nll"].to_numpy()
    # steps of 1/256 around 0.75 and of 1/2 around 70: nats of the code and of the step's width
    widths = np.array([1 / 256, 1 / 2])
    assert nll == pytest.approx(found.time.code_nll + np.log(widths), abs=1e-4)
    assert table["type_nll"].null_count == 2  # not asked
