"""Questions in words on a real cluster: JSON lines, training, answers and their metrics."""

import json

import numpy as np
import pytest
from mlflow.tracking import MlflowClient

from mmtpp.core.errors import DataError
from mmtpp.core.representation.timecode import encode_intervals
from mmtpp.data.prepare import prepare
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.model.folders.record import load_trained_tasks
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import read_bytes, write_bytes
from mmtpp.train.launch import finetune
from tests.helpers.curves import curve
from tests.helpers.job_settings import make_config

RAW, STORE = "s3://mmtpp/t/questions", "s3://mmtpp/t/questions_store"


def _event(interval: float, kind: int, text: str) -> str:
    code = encode_intervals(np.array([interval]), num_bytes=4)[0]
    time = "".join(f"<|byte_{value}|>" for value in code)
    return (
        f"<|start_of_event|> <|time_start|>{time}<|time_end|> <|type_start|><|type_{kind}|>"
        f"<|type_end|> <|text_start|>{text}<|text_end|> <|end_of_event|>\n"
    )


def _publish() -> None:
    """Write two files of 15 sequences: the number of events of type 1, and the type of the last."""
    for file, question in (("count", "How many of type 1?"), ("last", "Which type is last?")):
        lines = []
        for index in range(15):
            rng = np.random.default_rng([len(file), index])
            kinds = rng.integers(0, 2, 6)
            events = "".join(_event(1.0 + (i % 2), int(k), "so") for i, k in enumerate(kinds))
            answer = str(int(kinds.sum())) if file == "count" else ["zero", "one"][kinds[-1]]
            lines.append(
                {
                    "prompt_text": f"{events}<|question|>{question}<|im_end|>\n",
                    "response_text": f"{answer}<|im_end|>",
                }
            )
        data = "\n".join(map(json.dumps, lines))
        write_bytes(f"{RAW}/{file}.jsonl", data.encode())


SETTINGS = {
    "source.kind": "danmaku_qa",
    "source.uri": RAW,
    "store.uri": STORE,
    "compression.strategy": "none",
    "generation.max_tokens": 6,
}


def test_a_model_learns_to_answer_questions_and_is_scored(base, stack):
    _publish()
    config = make_config(**{**SETTINGS, "model.path": base["model_uri"]})
    prepare(config)
    changes = {
        **SETTINGS,
        "run.name": "questions",
        "model.path": base["model_uri"],
        "tasks.time": 0.0,
        "tasks.type": 0.0,
        "tasks.joint": 0.0,
        "tasks.qa": 1.0,
        "training.num_steps": 60,
        "training.num_workers": 1,
        "training.validation_sequences": 0,
        "training.learning_rate": 5e-3,
    }
    trained = finetune(make_config(**changes))
    trained_tasks = load_trained_tasks(trained["model_uri"])
    assert trained_tasks is not None
    assert trained_tasks.tasks == ("qa",)
    losses = curve(MlflowClient(stack.mlflow_uri), trained["run_id"])
    assert losses[max(losses)] < 0.5 * losses[1]
    result = evaluate(make_config(**{**changes, "model.path": trained["model_uri"]}))
    table = read_table(str(result["answers_uri"]))
    count = load_manifest(STORE).sequences_by_split["test"]
    assert result["answers"] == len(table) == count
    assert len(set(table["sequence_id"].to_pylist())) == count
    assert "targets" not in result
    for row in table.to_pylist():
        is_count = row["sequence_id"].startswith("count#")
        assert row["question"] == ("How many of type 1?" if is_count else "Which type is last?")
        assert row["nll"] > 0
    # trained only on such answers, the model mostly generates one of them
    known = {*"0123456", "zero", "one"}
    assert np.mean([text in known for text in table["written"].to_pylist()]) > 0.5
    metrics = result["metrics"]
    assert {"qa/exact_match", "qa/rouge_l", "qa/parsed", "qa/mean_absolute_error"} <= metrics.keys()  # pyright: ignore[reportAttributeAccessIssue]
    assert {"qa/count/accuracy_of_numbers", "qa/last/exact_match"} <= metrics.keys()  # pyright: ignore[reportAttributeAccessIssue]
    recorded = json.loads(read_bytes(str(result["answers_uri"]).replace(".parquet", ".json")))
    assert recorded["qa/exact_match"]["value"] == metrics["qa/exact_match"]


def test_a_store_without_questions_is_refused(base, store):
    with pytest.raises(DataError, match=r"no sequence of the .* split has a question"):
        finetune(make_config(**{"model.path": base["model_uri"], "tasks.qa": 1.0}))
