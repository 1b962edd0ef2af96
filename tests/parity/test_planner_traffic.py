"""The planner's traffic of a step and size of a checkpoint, against DeepSpeed's own."""

from pathlib import Path

import pytest

from mmtpp.planner.memory import Counts, Option, Workload
from mmtpp.planner.scale import checkpoint_bytes, sent_bytes
from tests.parity.ranks import SAMPLES, Job, event_model, run_ranks

FLOAT32_TO_BFLOAT16 = 2  # the planner counts bfloat16, the run has float32


def _counts(*, lora: bool) -> Counts:
    model = event_model(lora=lora, images=False)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trained = sum(size for size, is_trained in sizes if is_trained)
    return Counts(
        family="tiny",
        parameters=sum(size for size, _ in sizes),
        trained=trained,
        states=2 * trained,
        largest=0,
        embedding=0,
        num_layers=1,
        layer_bytes=0,
        layer_input_bytes=0,
        vocabulary=0,
    )


def _workload(lora: bool) -> Workload:
    return Workload("tiny", lora_rank=4 * lora, max_tokens=64, samples_per_step=SAMPLES)


def _sent(traffic: dict[str, int], num_ranks: int) -> float:
    """Bytes that a rank sends in rings."""
    passes = {"all_reduce": 2}
    volume = sum(passes.get(name, 1) * size for name, size in traffic.items())
    return volume * (num_ranks - 1) / num_ranks


@pytest.mark.parametrize("num_ranks", [2, 4])
@pytest.mark.parametrize("lora", [False, True])
def test_the_traffic_of_a_step_is_deepspeeds(num_ranks: int, lora: bool):
    jobs = [Job(stage=stage, lora=lora, images=False, end=2) for stage in (1, 2, 3)]
    for job, result in zip(jobs, run_ranks(num_ranks, *jobs), strict=True):
        option = Option(job.stage, checkpointing=False, offload=False)
        counts, workload = _counts(lora=lora), _workload(lora)
        expected = sent_bytes(counts, workload, option, num_gpus=num_ranks) * FLOAT32_TO_BFLOAT16
        assert _sent(result.traffic, num_ranks) == pytest.approx(expected, rel=0.01), job.stage


def test_the_size_of_a_checkpoint_is_that_of_its_files(tmp_path: Path):
    run_ranks(2, Job(stage=1, images=False, end=1, save=str(tmp_path)))
    written = sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file())
    expected = checkpoint_bytes(_counts(lora=False), _workload(lora=False))
    assert written == pytest.approx(expected, rel=0.05)
