"""Settings that do not apply to a temporal expert are refused before anything is started."""

import pytest

from mmtpp.config.job_checks import check_finetune
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.train.launch import TrainingJob, finetune, pretrain, run_training_job


def _config(**model: str) -> RunConfig:
    return config_from_tree({"store": {"uri": "/none"}, "model": {"preset": "expert", **model}})


def test_it_has_no_second_stage():
    with pytest.raises(ConfigError, match="trained by pretrain alone"):
        finetune(_config())


def test_a_dry_run_of_the_second_stage_is_refused():
    with pytest.raises(ConfigError, match="trained by pretrain alone"):
        check_finetune(_config())


def test_it_does_not_continue_another_model():
    with pytest.raises(ConfigError, match="a new expert starts from no other model"):
        pretrain(_config(path="/model"))
    with pytest.raises(ConfigError, match="population"):
        run_training_job(TrainingJob("pretrain", _config(), start_uri="/checkpoint"))


def test_its_time_zone_must_exist():
    with pytest.raises(ConfigError, match="Europe/Nowhere"):
        config_from_tree({"expert": {"time_zone": "Europe/Nowhere"}})


@pytest.mark.parametrize("texts", ["none", "length", "words"])
def test_texts_have_a_name(texts: str):
    assert config_from_tree({"expert": {"texts": texts}}).expert.texts == texts


def test_texts_are_no_longer_true_or_false():
    with pytest.raises(ConfigError, match="no longer true or false: set words or length"):
        config_from_tree({"expert": {"texts": True}})
    with pytest.raises(ConfigError, match="no longer true or false: set none"):
        config_from_tree({"expert": {"texts": False}})
    with pytest.raises(ConfigError, match=r"expert\.texts"):
        config_from_tree({"expert": {"texts": "sentences"}})
