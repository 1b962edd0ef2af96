"""Ray Train calls one function on every worker: it runs the loop of the kind of inputs."""

from functools import partial
from typing import Any

import pytest

from mmtpp.train import expert_loop, loop
from mmtpp.train.entry import train_on_worker
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.worker_inputs import WorkerInputs


@pytest.mark.parametrize("kind", [WorkerInputs, ExpertInputs])
def test_inputs_choose_the_loop(kind: type, monkeypatch: pytest.MonkeyPatch):
    called: list[tuple[str, object, object]] = []
    monkeypatch.setattr(loop, "train", lambda *given: called.append(("loop", *given)))
    monkeypatch.setattr(
        expert_loop, "train_expert", lambda *given: called.append(("expert loop", *given))
    )
    inputs: Any = object.__new__(kind)
    # as ray_training.py passes it to Ray Train, which calls it without arguments
    partial(train_on_worker, inputs, "stop request")()
    expected = {WorkerInputs: "loop", ExpertInputs: "expert loop"}
    assert called == [(expected[kind], inputs, "stop request")]
