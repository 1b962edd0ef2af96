"""The files of a training state: the parts of all ranks make a whole, or an error is raised."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmtpp.config.load import config_from_tree
from mmtpp.core.errors import ModelError
from mmtpp.train.engine.training_state import TrainingState
from mmtpp.train.optimizer.optimizer import Optimizer


def _trained(updates: int, width: int = 3, **optimizer: object) -> SimpleNamespace:
    """An engine without DeepSpeed, after some updates."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
    module[0].bias.requires_grad_(False)
    trained = {
        name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad
    }
    config = config_from_tree({"optimizer": optimizer})
    optimizer = Optimizer(
        trained, config.optimizer, config.optimizer_precision, lr=0.1, weight_decay=0.01
    )
    engine = SimpleNamespace(module=module, optimizer=optimizer)
    engine.state = TrainingState(engine, optimizer, previous_weights={}, rank=0, num_ranks=1)
    for _ in range(updates):
        _update(engine)
    return engine


def _update(engine: SimpleNamespace) -> None:
    engine.module(torch.arange(4.0)).square().sum().backward()
    engine.optimizer.step()
    engine.optimizer.zero_grad()


def _saved(folder: Path, num_ranks: int, **optimizer: object) -> SimpleNamespace:
    engine = _trained(3, **optimizer)
    for rank in range(num_ranks):
        engine.state._rank, engine.state._num_ranks = rank, num_ranks
        engine.state.save(folder)
    return engine


@pytest.mark.parametrize("name", ["adamw", "muon", "signsgd", "signum", "steepest"])
@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_parts_of_any_number_of_ranks_make_a_whole(tmp_path: Path, num_ranks: int, name: str):
    engine = _saved(tmp_path, num_ranks, name=name)
    resumed = _trained(0, name=name)
    resumed.state.load(tmp_path, num_steps=3)
    for updated in (engine, resumed):
        _update(updated)
    for name, value in engine.module.state_dict().items():
        assert torch.equal(resumed.module.state_dict()[name], value), name


def test_a_missing_part_is_an_error(tmp_path: Path):
    _saved(tmp_path, 3)
    (tmp_path / "state-00001-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match="not complete"):
        _trained(0).state.load(tmp_path, num_steps=3)


def test_no_part_is_an_error(tmp_path: Path):
    with pytest.raises(ModelError, match="not complete"):
        _trained(0).state.load(tmp_path, num_steps=3)


def test_the_state_of_another_model_is_an_error(tmp_path: Path):
    _saved(tmp_path, 1)
    with pytest.raises(
        ModelError, match=r"0\.weight has the shape \(3, 4\) .* \(5, 4\) in the model"
    ):
        _trained(0, width=5).state.load(tmp_path, num_steps=3)
    with pytest.raises(ModelError, match=r"9 tensors .* for example 0\.weight/exp_avg"):
        _trained(0, name="signum").state.load(tmp_path, num_steps=3)
