"""``mmtpp score``: one answer for every line, whatever the blocks in which the lines arrive."""

import json
import os
import subprocess
import sys

import pytest

from mmtpp.api.forecaster import Forecaster
from mmtpp.expert.expert_folder import Expert
from mmtpp.model.folders.record import write_tasks
from mmtpp.serve import score
from mmtpp.serve.build_live_model import build_live_model
from mmtpp.serve.event_log import IN_MEMORY, EventLog
from mmtpp.serve.live_sequences import LiveSequences
from mmtpp.serve.score import Scorer
from tests.helpers.live_models import expert_forecaster

LINES = [
    '{"sequence": "a", "time": 1, "type": "alarm"}',
    "",
    '{"sequence": "b", "time": 1.5, "type": "check", "text": "é"}',
    '{"sequence": "a", "time": 4, "type": "repair"}',
    "nonsense",
    '{"sequence": "a", "time": 2, "type": "alarm"}',
    '{"sequence": "c", "time": 2, "type": "alarm", "key": "k"}',
    '{"sequence": "c", "time": 2, "type": "alarm", "key": "k"}',
    '{"sequence": 5, "time": 2, "type": "alarm"}',
    '{"sequence": "a", "time": 9, "type": "alarm"}',
]


@pytest.fixture(scope="module")
def forecaster() -> Forecaster:
    return expert_forecaster()


def _scorer(forecaster: Forecaster) -> Scorer:
    return Scorer(
        LiveSequences(
            EventLog(IN_MEMORY), build_live_model(forecaster, max_sequences=10), max_text=100
        )
    )


def _answers(forecaster: Forecaster, blocks: list[bytes]) -> list[dict]:
    return [answer for answers in _scorer(forecaster)(blocks) for answer in answers]


def test_every_line_has_one_answer(forecaster: Forecaster):
    scorer = _scorer(forecaster)
    text = "\n".join(LINES).encode()  # without a newline at the end
    answers = [answer for of_block in scorer([text]) for answer in of_block]
    assert [answer["line"] for answer in answers] == [1, 3, 4, 5, 6, 7, 8, 9, 10]
    assert [answer.get("rejected") for answer in answers] == [
        None, None, None, "not_json", "out_of_order", None, None, "bad_sequence", None,
    ]  # fmt: skip
    assert [answer.get("position") for answer in answers] == [
        0, 0, 1, None, None, 0, None, None, 2,
    ]  # fmt: skip
    assert answers[6]["repeated"] is True
    assert scorer.counts == {
        "accepted": 5,
        "repeated": 1,
        "rejected/not_json": 1,
        "rejected/out_of_order": 1,
        "rejected/bad_sequence": 1,
    }


def test_forecasts_and_surprises_are_those_of_the_forecaster(forecaster: Forecaster):
    answers = _answers(forecaster, ["\n".join(LINES).encode()])
    times, types = [1.0, 4.0, 9.0], ["alarm", "repair", "alarm"]
    for number, answer in enumerate([answers[0], answers[2], answers[8]], 1):
        sequence = forecaster.sequence(times[:number], types[:number], sequence_id="a")
        expected = forecaster.forecast(sequence)
        found = answer["forecast"]
        assert found["interval_mean"] == pytest.approx(expected.mean, rel=1e-4)
        assert found["type_probabilities"] == pytest.approx(expected.type_probabilities, abs=1e-5)
        if number < 3:
            surprise = answers[2 if number == 1 else 8]["surprise"]
            wait = times[number] - times[number - 1]
            assert surprise["interval_cdf"] == pytest.approx(
                1 - expected.survival([wait])[0], abs=1e-5
            )
            chance = (expected.type_probabilities or {})[types[number]]
            assert surprise["type_probability"] == pytest.approx(chance, abs=1e-5)
    assert "surprise" not in answers[0]


@pytest.mark.parametrize("size", [1, 7, 64])
def test_answers_do_not_depend_on_blocks(forecaster: Forecaster, size: int):
    text = ("\n".join(LINES) + "\n").encode()
    blocks = [text[start : start + size] for start in range(0, len(text), size)]
    whole, parts = _answers(forecaster, [text]), _answers(forecaster, blocks)
    assert [answer["line"] for answer in parts] == [answer["line"] for answer in whole]
    for part, expected in zip(parts, whole, strict=True):
        assert part.get("message") == expected.get("message")
        if "forecast" in expected:
            assert part["forecast"]["interval_mean"] == pytest.approx(
                expected["forecast"]["interval_mean"], rel=1e-4
            )


@pytest.mark.parametrize("size", [10, 10_000])
def test_a_long_line_is_rejected_and_the_next_one_is_read(
    forecaster: Forecaster, monkeypatch: pytest.MonkeyPatch, size: int
):
    monkeypatch.setattr(score, "MAX_LINE", 60)
    text = (LINES[0] + "\n" + "x" * 200 + "\n" + LINES[3] + "\n").encode()
    blocks = [text[start : start + size] for start in range(0, len(text), size)]
    answers = _answers(forecaster, blocks)
    assert [(answer["line"], answer.get("rejected")) for answer in answers] == [
        (1, None),
        (2, "long_line"),
        (3, None),
    ]


def test_the_command_answers_while_its_input_is_open(tmp_path):
    """A line is answered before the next one is written; a later call continues the sequence."""
    forecaster = expert_forecaster()
    folder = tmp_path / "model"
    folder.mkdir()
    assert isinstance(forecaster.model, Expert)
    assert forecaster.vocabulary is not None
    forecaster.model.save(folder)
    write_tasks(forecaster.trained_tasks, folder)
    forecaster.vocabulary.save(folder)
    command = [sys.executable, "-m", "mmtpp", "score", "--model", str(folder)]
    command += ["--state", str(tmp_path / "log.sqlite")]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        for line in (LINES[0], LINES[4]):
            process.stdin.write(f"{line}\n".encode())
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["line"] in (1, 2)
        process.stdin.close()
        errors = process.stderr.read().decode()
    assert process.returncode == 0, errors
    assert "events: accepted 1, rejected/not_json 1" in errors
    again = subprocess.run(command, input=f"{LINES[3]}\n".encode(), capture_output=True, check=True)
    assert json.loads(again.stdout)["position"] == 1
