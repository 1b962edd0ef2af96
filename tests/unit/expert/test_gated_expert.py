"""The expert of a mixture: its folder, its types, and its part in forecasts and futures."""

import json

import numpy as np
import pytest
import torch

from mmtpp.core.errors import ModelError
from mmtpp.core.forecasting.gate import Gate, mix_logs
from mmtpp.core.forecasting.interval_forecasts import IntervalForecasts, IntervalRange
from mmtpp.core.past.event_memory import memory_rows
from mmtpp.core.past.past_events import PastEvents
from mmtpp.expert.code_forecasts import code_forecasts
from mmtpp.expert.event_inputs import EventInputs
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.expert_forecasts import ExpertForecasts
from mmtpp.expert.gated_expert import GATE_FILE, GatedExpert, load_gated_expert, write_gate
from mmtpp.expert.mixed_expert import MixedExpert
from mmtpp.expert.rollout import ExpertRollout
from mmtpp.expert.sequence_state import SequenceState
from mmtpp.model.folders.record import TrainedTasks, write_tasks
from tests.helpers.small_experts import TICK, alternating_sequences

RANGE = IntervalRange(TICK, 60.0, TICK)


@pytest.fixture(scope="module")
def past() -> PastEvents:
    [sequence] = alternating_sequences(1, 9)
    return sequence.past.slice(0, 41)


def test_a_folder_gives_back_expert_types_and_gate(expert: Expert, tmp_path):
    expert.save(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    write_tasks(TrainedTasks(("time", "type"), RANGE, (2, 5), (), 1.0, False), tmp_path)
    with pytest.raises(ModelError, match=r"no gate\.json"):
        load_gated_expert(str(tmp_path))
    write_gate(Gate(0.25, 0.5), tmp_path, {"events": 3})
    assert load_gated_expert(str(tmp_path)).fitted_with is None
    write_gate(Gate(0.25, 0.5), tmp_path, {"language_model": {"path": "m", "adapter": "a"}})
    gated = load_gated_expert(str(tmp_path))
    assert gated.fitted_with == ("m", "a")
    assert gated.gate == Gate(0.25, 0.5)
    assert gated.type_codes == (2, 5)
    assert gated.expert.memory == expert.memory
    for damaged in ("{", json.dumps({"time": 0.5}), json.dumps({"time": 2, "type": 0})):
        (tmp_path / GATE_FILE).write_text(damaged)
        with pytest.raises(ModelError, match="damaged"):
            load_gated_expert(str(tmp_path))


def test_types_are_arranged_as_the_language_model_knows_them(expert: Expert):
    gated = GatedExpert(expert, (2, 5), Gate(0.5, 0.5))
    arranged = gated.arrange_types(np.log([[0.3, 0.7]]), (5, 1, 2))
    assert np.exp(arranged).tolist() == pytest.approx(np.array([[0.7, 0.0, 0.3]]))


def test_a_rollout_continues_the_memory_of_the_past(expert: Expert, past: PastEvents):
    rollout = ExpertRollout(expert, [SequenceState.after(expert.memory, past)], 2)
    intervals, types = np.array([2.0, 3.5]), np.array([1, 0])
    rollout.append(intervals, types)
    rollout.append(intervals, 1 - types)
    for future in range(2):
        times = past.times[-1] + np.cumsum([intervals[future]] * 2)
        longer = PastEvents.from_sequence(
            np.append(past.times, times),
            np.append(past.types, [types[future], 1 - types[future]]),
            np.zeros(len(past) + 2, dtype=np.int64),
        )
        rows, _ = memory_rows(expert.memory, longer)
        last = torch.tensor([int(longer.types[-1])])
        no_words = torch.zeros((1, 0), dtype=torch.int16)
        expected = ExpertForecasts.after(
            expert.networks, EventInputs(torch.from_numpy(rows[-1:]), last, no_words)
        )
        given = np.full(2, 2.5)
        assert rollout.log_likelihoods(given)[0][future] == pytest.approx(
            float(expected.log_density(torch.tensor([2.5]))[0]), rel=1e-5
        )


def test_forecasts_are_mixed_by_the_gate(expert: Expert, past: PastEvents):
    gated = GatedExpert(expert, (0, 1), Gate(0.25, 0.75))
    grid = RANGE.grid(num_bytes=2)
    uniform = np.full((1, len(grid.widths)), 1 / len(grid.widths))
    model = IntervalForecasts(grid, np.zeros(1), uniform, np.array([0.2]))
    log_types = np.log([[0.1, 0.9]])
    mixed = MixedExpert(gated, past, (0, 1), 1)
    mixed, mixed_types = mixed.mix_forecasts(model, log_types, grid)
    of_expert = code_forecasts(
        ExpertRollout(expert, [SequenceState.after(expert.memory, past)], 1).forecasts,
        grid,
        tick=TICK,
    )
    assert mixed is not None
    for value in (1.0, 2.0, 20.0):
        inside = 0.25 * 0.8 * model.cdf([value]) + 0.75 * (1 - of_expert.outside) * of_expert.cdf(
            [value]
        )
        assert mixed.cdf([value]) * (1 - mixed.outside) == pytest.approx(inside, abs=1e-9)
    assert mixed_types is not None
    assert np.exp(mixed_types).sum() == pytest.approx(1.0)
    _, of_expert_types = MixedExpert(
        GatedExpert(expert, (0, 1), Gate(0.0, 0.0)), past, (0, 1), 1
    ).mix_forecasts(None, log_types, grid)
    assert mixed_types == pytest.approx(mix_logs(0.75, log_types, of_expert_types))


def test_a_type_that_the_expert_lacks_is_not_sampled(expert: Expert, past: PastEvents):
    mixed = MixedExpert(GatedExpert(expert, (0, 1), Gate(0.5, 0.5)), past, (0, 1, 7), 4)
    probabilities = mixed.mix_types(np.full((4, 3), 1 / 3), np.full(4, 2.0))
    assert probabilities[:, 2].tolist() == [0.0] * 4
    assert probabilities.sum(axis=1) == pytest.approx(1.0)


def test_the_gate_chooses_whose_interval_is_sampled(expert: Expert, past: PastEvents):
    gated = GatedExpert(expert, (0, 1), Gate(0.3, 0.5))
    mixed = MixedExpert(gated, past, (0, 1), 4000)
    intervals = mixed.mix_intervals(np.full(4000, -1.0), np.random.default_rng(0))
    assert (intervals == -1.0).mean() == pytest.approx(0.3, abs=0.03)
