"""Stage 2 on a real cluster: fine-tuning, forecasts of held-out events, and baselines."""

import json
import re
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pyarrow.compute as pc
import pytest
from mlflow.tracking import MlflowClient

import mmtpp
from mmtpp.core.errors import ConfigError, DataError, ModelError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.model.folders.record import load_trained_tasks
from mmtpp.predict.predict import predict
from mmtpp.storage.manifest import load_manifest
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import list_files, read_bytes
from mmtpp.train.launch import finetune
from tests.helpers.curves import curve
from tests.helpers.job_settings import STAGE_TWO, STORE, make_config
from tests.helpers.published_events import publish_events

USER_FILES = "s3://mmtpp/t/user"


def test_stage_two_learns_and_is_tracked(adapted, stack):
    client = MlflowClient(stack.mlflow_uri)
    run = client.get_run(adapted["run_id"])
    assert run.data.tags["mmtpp.job"] == "finetune"
    history = client.get_metric_history(adapted["run_id"], "train/time_loss_per_token")
    assert history[0].value > history[-1].value + 0.5
    assert run.data.metrics["validation/events"] > 10
    assert run.data.metrics["validation/type_accuracy"] >= 0
    note = run.data.tags["mlflow.note.content"]
    assert "**finetune** of" in note
    assert adapted["adapter_uri"] in note
    [data] = run.inputs.dataset_inputs
    assert load_manifest(STORE).fingerprint.startswith(data.dataset.digest)
    assert {tag.key: tag.value for tag in data.tags} == {"mlflow.data.context": "training"}
    assert 0 <= run.data.metrics["system/cpu_utilization_percentage"] <= 100
    trained_tasks = load_trained_tasks(adapted["adapter_uri"])
    assert trained_tasks is not None
    assert trained_tasks.tasks == ("time", "type", "joint", "text")
    assert trained_tasks.interval_range == IntervalRange(smallest=5.0, largest=61.0, tick=1.0)
    assert not trained_tasks.trains_history


@pytest.fixture(scope="module")
def evaluation(base, adapted, stack):
    """The result of an evaluation with texts and futures, in which other tests look."""
    settings = {
        "model.path": base["model_uri"],
        "model.adapter": adapted["adapter_uri"],
        "evaluation.num_generated_texts": 60,
        "generation.max_tokens": 12,
        "evaluation.num_futures": 2,
        "evaluation.horizon": 70.0,
        "evaluation.origins_per_sequence": 3,
        "evaluation.max_future_events": 6,
    }
    return evaluate(make_config(**settings))


@pytest.fixture(scope="module")
def targets(evaluation):
    return read_table(str(evaluation["targets_uri"]))


def test_every_held_out_event_is_forecast_once(evaluation, targets):
    manifest = load_manifest(STORE)
    expected = manifest.events_by_split["test"] - manifest.sequences_by_split["test"]
    assert evaluation["targets"] == len(targets) == expected
    places = set(
        zip(targets["sequence_id"].to_pylist(), targets["position"].to_pylist(), strict=True)
    )
    assert len(places) == expected
    text_columns = {"text", "written", "rouge_l", "bleu", "chrf"}
    required = [name for name in targets.column_names if name not in text_columns]
    assert sum(targets[name].null_count for name in required) == 0
    # it was trained only on answers: no likelihoods of other tokens
    assert "events" not in evaluation
    json.dumps(evaluation, allow_nan=False)


def test_written_texts_have_no_control_tokens_and_are_scored(evaluation, targets):
    written = targets.filter(pc.field("written").is_valid())
    assert 10 < len(written) < len(targets)
    for name, position, text in zip(
        *(written[column].to_pylist() for column in ("sequence_id", "position", "text")),
        strict=True,
    ):
        line = int(name.removeprefix("line-"))
        assert text == f"event {position % 4} of line {line % 3}"
    assert not any("<|" in text for text in written["written"].to_pylist())
    scores = written.select(["rouge_l", "chrf"]).to_pandas()
    assert scores["rouge_l"].between(0, 1).all()
    assert evaluation["metrics"]["text/chrf"] == pytest.approx(scores["chrf"].mean())
    assert "text/nll_nats_per_token" in evaluation["metrics"]


def test_forecasts_are_close_to_the_events_and_better_than_the_last_interval(evaluation, targets):
    ordered = [targets[f"quantile_{level}"].to_numpy() for level in ("05", "25", "50", "75", "95")]
    assert (np.diff(ordered, axis=0) >= 0).all()
    assert targets["crps"].to_numpy().max() < 100
    metrics, baselines = evaluation["metrics"], evaluation["baselines"]
    assert metrics["time/rmse_s"] > 0
    # intervals are 5, 6, 60 and 61 s: above their entropy, below a uniform distribution to 61 s
    assert np.log(4) / 2 < metrics["time/nll_nats_per_event"] < np.log(61)
    assert {"type/accuracy", "joint/nll_nats_per_event"} <= metrics.keys()
    assert metrics["type/accuracy/at_1-49"] == metrics["type/accuracy"]
    names = {name.partition("/")[0] for name in baselines if "/time/" in name}
    assert names == {"hawkes", "poisson", "marginal", "last"}
    # a long interval follows every three short ones, so training beats the last interval
    assert metrics["time/crps_s"] < baselines["last/time/crps_s"]


def test_futures_start_at_origins_and_keep_within_the_horizon(evaluation):
    sequences = load_manifest(STORE).sequences_by_split["test"]
    futures = read_table(str(evaluation["targets_uri"]).replace("targets", "futures"))
    assert len(futures) == sequences * 3 * 2  # 3 origins of each sequence, 2 futures of each
    assert max(map(len, futures["times"].to_pylist())) <= 6
    assert all(times == sorted(times) for times in futures["times"].to_pylist())
    assert max(max(times, default=0) for times in futures["times"].to_pylist()) <= 70
    metrics = evaluation["metrics"]
    lengths = [len(times) for times in futures["times"].to_pylist()]
    assert lengths.count(6) / len(lengths) == pytest.approx(metrics["horizon/truncated_futures"])
    assert 0 <= metrics["horizon/t_map"] <= 1
    # four events take 75 to 79 s, so 70 s hold one to four
    true_events = metrics["horizon/true_events"]
    assert 1 < true_events < 4
    assert true_events == evaluation["baselines"]["repeat/horizon/true_events"]
    assert metrics["horizon/otd_s"] > 0


def test_the_report_and_mlflow_show_the_metrics(evaluation, stack):
    tree = json.loads(
        read_bytes(str(evaluation["targets_uri"]).replace("targets.parquet", "metrics.json"))
    )
    accuracy = tree["model"]["type/accuracy"]
    value = evaluation["metrics"]["type/accuracy"]
    assert accuracy["low"] <= accuracy["value"] == value <= accuracy["high"]
    client = MlflowClient(stack.mlflow_uri)
    figures = {item.path for item in client.list_artifacts(evaluation["run_id"], "figures")}
    assert figures == {
        f"figures/{name}.png"
        for name in ("calibration", "intervals", "types", "positions", "histories")
    }
    page = read_bytes(str(evaluation["report_uri"])).decode()
    assert len(page) < 3 * 2**20
    assert f"{100 * accuracy['value']:.1f} %" in page
    assert 'href="data:image/jpeg' in page
    assert "line " in page  # texts of events
    artifacts = {item.path for item in client.list_artifacts(evaluation["run_id"])}
    assert {"report.html", "figures"} <= artifacts


def test_predict_forecasts_the_next_event_of_a_users_files(base, adapted, store):
    """The files are not in the store; the model's vocabulary and limits are used."""
    publish_events(USER_FILES)
    settings = {
        "model.path": base["model_uri"],
        "model.adapter": adapted["adapter_uri"],
        "source.uri": USER_FILES,
        "store.uri": "",
        "prediction.format": "jsonl",
        "prediction.sequences_per_file": 10,
        "prediction.quantiles": (0.1, 0.5, 0.9),
        "prediction.num_futures": 3,
        "prediction.horizon": 30.0,
        "prediction.max_future_events": 5,
        "prediction.generate_text": True,
        "generation.max_tokens": 8,
        # settings of held-out evaluation, without effect here
        "evaluation.max_sequences": 2,
        "window.time_from": 1e9,
    }
    result = predict(make_config(**settings))
    assert result["forecasts"] == 24
    files = sorted(info.path for info in list_files(str(result["forecasts_uri"]), ".jsonl"))
    assert [path.rpartition("/")[2] for path in files] == [
        "part-00000.jsonl",
        "part-00001.jsonl",
        "part-00002.jsonl",
    ]
    rows = [
        json.loads(line)
        for name in files
        for line in read_bytes(f"s3://{name}").decode().splitlines()
    ]
    assert {f"line-{index:02d}" for index in range(24)} == {row["sequence_id"] for row in rows}
    for row in rows:
        assert 40 == row["events"] >= row["context"] > 5
        assert row["interval_q10"] <= row["interval_q50"] <= row["interval_q90"]
        assert sum(entry["probability"] for entry in row["type_probabilities"]) == pytest.approx(
            1.0
        )
        assert (
            max(row["type_probabilities"], key=lambda entry: entry["probability"])["type"]
            == row["type"]
        )
        assert isinstance(row["text"], str)
        assert len(row["futures"]) == 3
        for future in row["futures"]:
            times = [row["last_time"], *(event["time"] for event in future)]
            assert times == sorted(times)
            assert len(future) <= 5
            assert times[-1] <= row["last_time"] + 30.0
            assert {event["type"] for event in future} <= {"0", "1", "2", "3"}
    _check_notebook(adapted["adapter_uri"], {row["sequence_id"]: row for row in rows})
    with pytest.raises(ModelError, match=r"units of 60 s, the model was trained with units of 1 s"):
        predict(make_config(**settings, **{"source.seconds_per_unit": 60.0, "run.name": "minutes"}))
    with pytest.raises(ModelError, match="was not fine-tuned to forecast"):
        predict(make_config(**{**settings, "model.adapter": ""}))


def _check_notebook(adapter: str, rows: dict[str, dict]) -> None:
    """The Python API returns the forecasts of the job for the same files."""
    settings = {"generation.max_tokens": 8, "prediction.max_future_events": 5}
    forecaster = mmtpp.Forecaster.from_pretrained(adapter, settings=settings)
    assert (forecaster.seconds_per_unit, forecaster.type_names) == (1.0, ())
    for sequence in forecaster.load_sequences(USER_FILES)[:3]:
        forecast = forecaster.forecast(sequence, futures=3, horizon=30.0, text=True)
        record, expected = forecast.as_row((0.1, 0.5, 0.9)), dict(rows[sequence.sequence_id])
        # only the job, which read the files, knows it
        assert expected.pop("newest_event_rejected") is None
        assert list(expected) == list(record)
        for name, value in expected.items():
            if name.startswith("interval") or name == "simultaneous":
                assert value == pytest.approx(record[name], rel=1e-4), name
            elif name == "type_probabilities":
                chances = [entry["probability"] for entry in value]
                assert chances == pytest.approx(
                    list(forecast.type_probabilities.values()), abs=1e-4
                )
            elif name != "futures":
                assert value == record[name], name
        assert [len(future) for future in expected["futures"]] == [
            len(future) for future in record["futures"]
        ]
        survival = forecast.survival([0.0, forecast.median, 1e9])
        assert [1 - forecast.simultaneous, 0.5, 0.0] == pytest.approx(survival, abs=1e-3)
        assert (forecast.hazard([5.0, 61.0]) >= 0).all()
    sequence = forecaster.sequence([0.0, 5.0, 65.0], [3, 0, 1], texts=["a", "", "b"])
    assert sum(forecaster.forecast(sequence).type_probabilities.values()) == pytest.approx(1.0)
    with pytest.raises(DataError, match=r"event 1 has the time 1\.0"):
        forecaster.forecast(forecaster.sequence([5.0, 1.0], [0, 0]))
    with pytest.raises(DataError, match="unknown types what"):
        forecaster.sequence([5.0], ["what"])
    with pytest.raises(ConfigError, match=r"window\.max_token"):
        mmtpp.Forecaster.from_pretrained(adapter, settings={"window.max_token": 8})


def test_mlflow_loads_the_forecaster(adapted, stack, monkeypatch):
    """From the run and from the registry; its forecasts equal those of the Python API."""
    mlflow.set_tracking_uri(stack.mlflow_uri)
    events = {"times": [0.0, 5.0, 65.0], "types": [3, 0, 1], "texts": ["a", "", "b"]}
    frame = pd.DataFrame({name: [value] for name, value in {"sequence_id": "s", **events}.items()})
    forecaster = mmtpp.Forecaster.from_pretrained(adapted["adapter_uri"])
    sequence = forecaster.sequence(
        events["times"], events["types"], texts=events["texts"], sequence_id="s"
    )
    expected = forecaster.forecast(sequence)
    versions = MlflowClient(stack.mlflow_uri).search_model_versions("name = 'line forecaster'")
    assert [version.run_id for version in versions] == [adapted["run_id"]]
    logged = mlflow.pyfunc.load_model(f"runs:/{adapted['run_id']}/forecaster")
    example = logged.input_example
    assert isinstance(example, pd.DataFrame)
    assert len(logged.predict(example)) == 1
    for uri in (f"runs:/{adapted['run_id']}/forecaster", "models:/line forecaster/1"):
        [row] = mlflow.pyfunc.load_model(uri).predict(frame).to_dict("records")
        assert row["interval_mean"] == pytest.approx(expected.mean)
        chances = {entry["type"]: entry["probability"] for entry in row["type_probabilities"]}
        assert chances == pytest.approx(expected.type_probabilities)


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_the_python_code_of_a_page_runs(page: str, adapted, tmp_path):
    """The names in the code are replaced by a table and a model."""
    path = tmp_path / "events.csv"
    path.write_text("time,machine,what,note\n0,a,1,hot\n0.1,a,2,too hot\n400,a,0,cool\n3,b,1,hot\n")
    text = (Path(__file__).parents[2] / page).read_text()
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    for name, replacement in {
        "events.csv": str(path),
        "own/runs/forecaster/model": adapted["adapter_uri"],
    }.items():
        assert name in code
        code = code.replace(name, replacement)
    names: dict = {}
    exec(compile(code, page, "exec"), names)  # noqa: S102
    assert [sequence.sequence_id for sequence in names["sequences"]] == ["a", "b"]
    assert tuple(names["sequences"][0].texts) == ("hot", "too hot", "cool")
    assert names["forecast"].events == 3
    if page == "docs/python.md":  # waits 0, 0.1, 399.9; delta 0.2
        assert names["similar"].tolist() == [False, True, False]


def test_an_adapter_with_other_settings_is_refused_at_the_start(base, adapted):
    changes = {
        "model.path": base["model_uri"],
        "model.adapter": adapted["adapter_uri"],
        **STAGE_TWO,
    }
    with pytest.raises(ModelError, match=r"(?s)rank 8 and alpha 64.*lora\.rank = 4"):
        finetune(make_config(**{**changes, "lora.rank": 4}))
    with pytest.raises(ConfigError, match=r"model\.adapter"):
        finetune(make_config(**{**changes, "lora.rank": 0}))


@pytest.mark.slow
def test_training_continues_from_an_adapter(base, adapted, stack):
    changes = {
        "model.path": base["model_uri"],
        "model.adapter": adapted["adapter_uri"],
        "run.name": "stage2-more",
        "training.num_steps": 2,
        "training.validation_sequences": 0,
        **STAGE_TWO,
    }
    continued = finetune(make_config(**changes))
    client = MlflowClient(stack.mlflow_uri)
    before, after = (curve(client, run["run_id"]) for run in (adapted, continued))
    # the loss starts at the last loss of the first training, not at its first loss
    last, first = before[max(before)], after[1]
    assert abs(first - last) < 0.5 * abs(first - before[1])
