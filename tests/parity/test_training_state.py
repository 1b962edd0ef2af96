"""The files of a training state: shares of ranks that make a whole, or a clear error."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from mmtpp.core.errors import ModelError
from mmtpp.train.training_state import TrainingState


def _trained(updates: int, width: int = 3) -> SimpleNamespace:
    """An engine without DeepSpeed, after some updates."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, width), nn.Linear(width, 2))
    module[0].bias.requires_grad_(False)
    trained = [each for each in module.parameters() if each.requires_grad]
    engine = SimpleNamespace(module=module, optimizer=torch.optim.AdamW(trained, lr=0.1))
    for _ in range(updates):
        _update(engine)
    return engine


def _update(engine: SimpleNamespace) -> None:
    engine.module(torch.arange(4.0)).square().sum().backward()
    engine.optimizer.step()
    engine.optimizer.zero_grad()


def _saved(folder: Path, num_ranks: int) -> SimpleNamespace:
    engine = _trained(3)
    for rank in range(num_ranks):
        TrainingState(engine, rank=rank, num_ranks=num_ranks).save(folder)
    return engine


@pytest.mark.parametrize("num_ranks", [1, 2, 5])
def test_shares_of_any_number_of_ranks_make_a_whole(tmp_path: Path, num_ranks: int):
    engine = _saved(tmp_path, num_ranks)
    resumed = _trained(0)
    TrainingState(resumed, rank=0, num_ranks=1).load(tmp_path, num_updates=3)
    for each in (engine, resumed):
        _update(each)
    for name, value in engine.module.state_dict().items():
        assert torch.equal(value, resumed.module.state_dict()[name]), name


def test_a_missing_share_is_an_error(tmp_path: Path):
    _saved(tmp_path, 3)
    (tmp_path / "state-00001-of-00003.safetensors").unlink()
    with pytest.raises(ModelError, match="not whole"):
        TrainingState(_trained(0), rank=0, num_ranks=1).load(tmp_path, num_updates=3)


def test_no_share_is_an_error(tmp_path: Path):
    with pytest.raises(ModelError, match="not whole"):
        TrainingState(_trained(0), rank=0, num_ranks=1).load(tmp_path, num_updates=3)


def test_the_state_of_another_model_is_an_error(tmp_path: Path):
    _saved(tmp_path, 1)
    with pytest.raises(ModelError, match=r"0\.weight has the shape \(3, 4\), here \(5, 4\)"):
        TrainingState(_trained(0, width=5), rank=0, num_ranks=1).load(tmp_path, num_updates=3)
    other = _trained(0)
    other.module[0].bias.requires_grad_(True)
    with pytest.raises(ModelError, match=r"3 tensors are missing or unexpected, 0\.bias/exp_avg"):
        TrainingState(other, rank=0, num_ranks=1).load(tmp_path, num_updates=3)
