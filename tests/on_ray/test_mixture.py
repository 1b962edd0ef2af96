"""A language model mixed with a temporal expert on a real cluster: gate, evaluation, forecasts."""

import json

import numpy as np
import pytest

import mmtpp
from mmtpp.core.errors import ConfigError, ModelError
from mmtpp.evaluate.combine import combine
from mmtpp.evaluate.evaluate import evaluate
from mmtpp.predict.predict import predict
from mmtpp.storage.parquet import read_table
from mmtpp.storage.paths import join, list_files, read_bytes
from tests.helpers.job_settings import make_config


@pytest.fixture(scope="module")
def language_model(base, adapted) -> dict[str, object]:
    return {
        "model.path": base["model_uri"],
        "model.adapter": adapted["adapter_uri"],
        "training.num_workers": 1,  # one actor that loads the model
    }


@pytest.fixture(scope="module")
def combined(language_model, expert) -> dict:
    return combine(make_config(**language_model, **{"model.expert": expert["model_uri"]}))


@pytest.fixture(scope="module")
def mixture(language_model, combined) -> dict[str, object]:
    return {**language_model, "model.expert": combined["expert_uri"]}


def test_the_mixture_is_at_least_as_good_as_its_parts(combined):
    metrics = combined["metrics"]
    parts = ("language_model", "expert", "mixture")
    language_model, expert, mixed = (
        metrics[f"validation/{part}_nll_nats_per_event"] for part in parts
    )
    assert mixed <= min(language_model, expert) + 1e-9
    gate = json.loads(read_bytes(join(str(combined["expert_uri"]), "gate.json")))
    assert {name: gate[name] for name in ("time", "type")} == combined["gate"]


def test_evaluation_agrees_with_the_fit_on_the_same_events(mixture, combined):
    settings = {
        **mixture,
        "evaluation.split": "validation",
        "evaluation.num_futures": 2,
        "evaluation.horizon": 70.0,
        "evaluation.max_future_events": 6,
    }
    result = evaluate(make_config(**settings))
    assert result["targets"] == combined["events"]
    expected = combined["metrics"]["validation/mixture_nll_nats_per_event"]
    assert result["metrics"]["joint/nll_nats_per_event"] == pytest.approx(expected, abs=1e-4)
    targets = read_table(str(result["targets_uri"]))
    medians, cdf = (targets[name].to_numpy() for name in ("quantile_50", "cdf"))
    assert np.isfinite(medians).all()
    assert ((cdf >= 0) & (cdf <= 1)).all()
    assert targets["greedy"].null_count == len(targets)
    futures = read_table(str(result["targets_uri"]).replace("targets", "futures"))
    num_events = len(futures["times"][0])
    probabilities = np.array(futures["type_probabilities"].to_pylist()[0]).reshape(num_events, -1)
    assert probabilities.sum(axis=1) == pytest.approx(1.0, abs=1e-5)


def test_predict_and_the_python_api_agree(mixture):
    result = predict(make_config(**mixture, **{"source.uri": ""}))
    [file] = list_files(str(result["forecasts_uri"]), ".parquet")
    rows = {
        row["sequence_id"]: row
        for row in read_table(join(str(result["forecasts_uri"]), file.base_name)).to_pylist()
    }
    forecaster = mmtpp.Forecaster.from_pretrained(
        str(mixture["model.adapter"]), expert=str(mixture["model.expert"])
    )
    alone = mmtpp.Forecaster.from_pretrained(str(mixture["model.adapter"]))
    sequences = list(forecaster.load_sequences(make_config().store.uri))[:3]
    differs = False
    for sequence in sequences:
        forecast = forecaster.forecast(sequence, futures=3, horizon=30.0)
        row = rows[sequence.sequence_id]
        assert row["interval_q50"] == pytest.approx(forecast.median, rel=1e-4)
        assert row["type"] == forecast.type
        assert forecast.futures is not None
        differs |= forecast.mean != alone.forecast(sequence).mean
    assert differs


def test_folders_that_do_not_fit_are_refused(language_model, expert, mixture):
    with pytest.raises(ModelError, match=r"no gate\.json"):
        evaluate(make_config(**language_model, **{"model.expert": expert["model_uri"]}))
    with pytest.raises(ConfigError, match="only, not with another expert"):
        evaluate(make_config(**{**mixture, "model.path": expert["model_uri"], "model.adapter": ""}))
    with pytest.raises(ModelError, match="no temporal expert"):
        combine(make_config(**language_model, **{"model.expert": language_model["model.path"]}))
