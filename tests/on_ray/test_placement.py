"""Placement: data tasks and training workers run on the machines with their labels."""

import time

import pytest
from ray.util.state import list_actors, list_tasks

from mmtpp.data.prepare import prepare
from mmtpp.runtime.machines import machines
from mmtpp.train.launch import pretrain
from tests.helpers.job_settings import make_config
from tests.on_ray.machines import machine

REPORT_DELAY_S = 5.0  # Ray reports tasks every second


def _tasks(name: str) -> dict[str, str]:
    """The machine of each task whose name contains ``name``, by the task's id."""
    tasks = list_tasks(limit=10000)
    return {task.task_id: task.node_id for task in tasks if name in task.name}  # pyright: ignore[reportAttributeAccessIssue]


def _map_tasks() -> dict[str, str]:
    """The machine of each task of Ray Data, by the task's id."""
    return _tasks("Map")


def _assembling_tasks() -> dict[str, str]:
    """The machine of each task that assembled rows of a training, by the task's id."""
    return _tasks("_assemble_blocks")


def _training_workers() -> dict[str, str]:
    actors = list_actors(limit=10000)
    return {
        actor.actor_id: actor.node_id  # pyright: ignore[reportAttributeAccessIssue]
        for actor in actors
        if "RayTrainWorker" in actor.class_name  # pyright: ignore[reportAttributeAccessIssue]
    }


@pytest.mark.slow  # starts another machine
def test_data_and_training_run_on_the_machines_with_their_labels(store):
    labels = {"role": "labelled"}
    config = make_config(
        **{
            "store.uri": "s3://mmtpp/t/labelled",
            "store.machine_labels": labels,
            "training.machine_labels": labels,
            "training.num_workers": 1,
            "training.num_steps": 2,
            "training.validation_sequences": 0,
        }
    )
    with machine(3, "role=labelled") as labelled:
        (resources,) = machines(labels)
        assert resources["CPU"] == 3
        assert machines({"role": "none"}) == []
        # Ray reports tasks a second late: all earlier ones are reported by now
        tasks, workers = set(_map_tasks()), set(_training_workers())
        assembling = set(_assembling_tasks())
        prepare(config)
        time.sleep(REPORT_DELAY_S)
        read = _map_tasks()
        assert {read[task] for task in read.keys() - tasks} == {labelled.node_id}
        pretrain(config)
        time.sleep(REPORT_DELAY_S)
        assembled = _assembling_tasks()
        assert {assembled[task] for task in assembled.keys() - assembling} == {labelled.node_id}
        trained = _training_workers()
        assert {trained[worker] for worker in trained.keys() - workers} == {labelled.node_id}
