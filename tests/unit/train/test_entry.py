"""Ray Train calls one function on every worker: it runs the loop of the kind of inputs."""

from dataclasses import fields
from functools import partial
from typing import Any

import pytest
import ray.train

from mmtpp.runtime.start_up import StartUp
from mmtpp.train import expert_loop, loop
from mmtpp.train.entry import train_on_worker
from mmtpp.train.expert_inputs import ExpertInputs
from mmtpp.train.worker_inputs import WorkerInputs

WORKER_PARTS = ["processes", "imports"]


@pytest.mark.parametrize("kind", [WorkerInputs, ExpertInputs])
@pytest.mark.parametrize(
    ("checkpoint", "parts"),
    [
        (None, ["plan", "tracking", "scheduling", *WORKER_PARTS]),
        ("checkpoint", WORKER_PARTS),
    ],
)
def test_inputs_choose_the_loop(
    kind: Any, checkpoint: str | None, parts: list[str], monkeypatch: pytest.MonkeyPatch
):
    called: list[tuple[str, Any, object]] = []
    monkeypatch.setattr(ray.train, "get_checkpoint", lambda: checkpoint)
    monkeypatch.setattr(loop, "train", lambda *given: called.append(("loop", *given)))
    monkeypatch.setattr(
        expert_loop, "train_expert", lambda *given: called.append(("expert loop", *given))
    )
    start_up = StartUp.begin().with_part("plan").with_part("tracking")
    values = {field.name: field.name for field in fields(kind)} | {"start_up": start_up}
    # as ray_training.py passes it to Ray Train, which calls it without arguments
    partial(train_on_worker, kind(**values), "stop request")()
    ((name, inputs, stop_request),) = called
    expected = {WorkerInputs: "loop", ExpertInputs: "expert loop"}
    assert (name, inputs.run, stop_request) == (expected[kind], "run", "stop request")
    assert [part for part, _ in inputs.start_up.ends] == parts
