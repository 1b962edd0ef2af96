"""Compare the forecasts of one forward pass with a forward pass for every question."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.branches import lay_out_branches
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.tasks import EVENT_TASKS, TASKS
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.timecode import encode_intervals
from mmtpp.evaluate.scores.targets import target_table
from mmtpp.inference.assembled_row import AssembledRow
from mmtpp.model.event_model import EventModel
from mmtpp.model.row_forecaster import RowForecaster
from tests.helpers.tiny_models import CELLS, batcher, tiny_backbone, tiny_vocabulary
from tests.parity.branched_rows import events_of, path_of, row_alone, row_of

VOCABULARY = tiny_vocabulary()
IDS = VOCABULARY.token_ids()
CODES = [0, 3, 5, 8]
TYPE_IDS = VOCABULARY.type_ids(CODES)


def _log_probabilities(model: EventModel, row: PackedRow, tokens: np.ndarray) -> np.ndarray:
    """(V,) log-probabilities after these tokens, computed by the head of Hugging Face."""
    with torch.no_grad():
        hidden = model.hidden(batcher(VOCABULARY)(row_alone(row, tokens)))[-1]
        return model.base.lm_head(hidden).double().log_softmax(-1).numpy()


def _among(scores: np.ndarray, ids: list[int]) -> np.ndarray:
    """Probabilities of some tokens, normalised among them."""
    chosen = np.exp(scores[ids])
    return chosen / chosen.sum()


@pytest.mark.parametrize(("num_bytes", "style"), [(2, "dense"), (4, "compact"), (3, "paper")])
def test_forecasts_equal_forecasts_of_separate_rows(num_bytes: int, style: str):
    model = EventModel(tiny_backbone(VOCABULARY))
    settings = TemplateSettings(style, "on_change", image_tokens=CELLS, time_bytes=num_bytes)
    template = Template(IDS, settings, has_questions=True)
    grid = IntervalRange(0.02, 5.0, 1e-6).grid(num_bytes=num_bytes)
    sequence, targets = events_of(9, seed=3), [2, 5, 8, 9]  # the last event has not happened yet
    sequence = replace(sequence, types=np.resize(np.array(CODES, np.int16), 9))
    laid = lay_out_branches(
        template, sequence, targets, tasks=EVENT_TASKS, first_bytes=grid.first_bytes
    )
    row = replace(
        row_of([laid]),
        questions=laid.questions,
        event=laid.tokens.event,
        may_be_label=laid.is_answer,
    )
    forecasts = RowForecaster(model, IDS, TYPE_IDS, grid)(row, batcher(VOCABULARY)(row))
    assert forecasts.time is not None
    assert forecasts.type is not None
    assert forecasts.joint is not None
    assert forecasts.text is not None
    assert targets == forecasts.time.event.tolist() == forecasts.type.event.tolist()
    assert targets[:3] == forecasts.joint.event.tolist() == forecasts.text.event.tolist()

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
        assert forecasts.time.interval.outside[place] == pytest.approx(1 - inside, abs=1e-4)
        np.testing.assert_allclose(
            forecasts.time.interval.mass[place, 1:], mass / inside, rtol=2e-3, atol=1e-7
        )
        assert forecasts.time.interval.zero[place] == pytest.approx(first[0] / inside, rel=2e-3)
        expected = _among(_log_probabilities(model, row, path_of(laid, type_at[place])), TYPE_IDS)
        np.testing.assert_allclose(
            np.exp(forecasts.type.log_probability[place]), expected, rtol=2e-3
        )
        if target == 9:
            assert np.isnan(forecasts.time.code_nll[place])
            continue
        expected = _among(_log_probabilities(model, row, path_of(laid, joint_at[place])), TYPE_IDS)
        np.testing.assert_allclose(
            np.exp(forecasts.joint.log_probability[place]), expected, rtol=2e-3
        )
        nll = -np.log(first[codes[target, 0]])
        answer = np.flatnonzero(
            (laid.branches.task == TASKS["time"]) & (laid.tokens.event == target)
        )[:num_bytes]
        for index in range(1, num_bytes):
            after = _log_probabilities(model, row, path_of(laid, answer[index - 1]))
            nll -= np.log(_among(after, byte_ids)[codes[target, index]])
        assert forecasts.time.code_nll[place] == pytest.approx(nll, abs=1e-3)
        text_positions = np.flatnonzero(
            (laid.branches.task == TASKS["text"]) & (laid.tokens.event == target)
        )
        text = 0.0
        for at in text_positions.tolist():
            before = row.predecessors()[at]
            text -= _log_probabilities(model, row, path_of(laid, before))[row.input_ids[at]]
        assert forecasts.text.nll[target // 3] == pytest.approx(text, rel=1e-4)
        assert len(text_positions) == forecasts.text.num_tokens[target // 3]


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
        first_bytes=grid.first_bytes,
    )
    row = replace(
        row_of([laid]),
        questions=laid.questions,
        event=laid.tokens.event,
        may_be_label=laid.is_answer,
        event_type=sequence.types,
        event_is_target=np.ones(3, np.bool_),
    )
    forecasts = RowForecaster(model, IDS, TYPE_IDS, grid)(row, batcher(VOCABULARY)(row))
    columns = {
        "segment": [0, 0, 0],
        "position": [7, 8, 9],
        "time": [0.0, 0.75, 70.75],
        "interval": sequence.intervals,
        "previous_interval": [np.inf, 0.0, 0.75],
        "previous_type": np.array([3, 3, 5], np.int16),
    }
    assembled = pa.table(
        {"sequences": [["s"]], **{f"event_{name}": [values] for name, values in columns.items()}}
    )
    sample = AssembledRow(row, assembled)
    table = target_table(sample, forecasts, np.array(CODES, np.int16), tick=1e-9, num_bytes=2)
    assert table["position"].to_pylist() == [8, 9]
    assert table["context"].to_pylist() == [1, 2]
    assert forecasts.time is not None
    nll = table["time_nll"].to_numpy()
    # steps are 1/256 wide around 0.75 and 1/2 around 70; the width is a part of the density
    widths = np.array([1 / 256, 1 / 2])
    assert nll == pytest.approx(forecasts.time.code_nll + np.log(widths), abs=1e-4)
    assert table["type_nll"].null_count == 2  # there are no type questions
