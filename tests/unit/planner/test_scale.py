"""Checkpoints and failures, against a simulation; numbers of a cluster by hand."""

import numpy as np
import pytest

from mmtpp.cli.main import main
from mmtpp.planner.memory import Counts, Option, Workload
from mmtpp.planner.scale import Cluster, best_interval, estimate_scale, lost_fraction

SHARDED = Option(3, checkpointing=True, offload=False)


def _simulated_loss(interval: float, write: float, mtbf: float, restart: float) -> float:
    """Lost fraction of a long training with exponential failures, event by event."""
    rng = np.random.default_rng(0)
    total = kept = 0.0
    while kept < 20_000 * mtbf / 100:
        failure = rng.exponential(mtbf)
        if failure >= interval + write:
            total += interval + write
            kept += interval
            continue
        total += failure
        while (again := rng.exponential(mtbf)) < restart:  # a failure during the restart
            total += again
        total += restart
    return 1 - kept / total


@pytest.mark.parametrize(
    ("interval", "write", "restart"), [(10.0, 0.5, 2.0), (40.0, 0.5, 2.0), (3.0, 2.0, 10.0)]
)
def test_the_lost_time_is_that_of_a_simulation(interval: float, write: float, restart: float):
    mtbf = 100.0
    expected = _simulated_loss(interval, write, mtbf, restart)
    lost = lost_fraction(interval, write_s=write, mtbf_s=mtbf, restart_s=restart)
    assert lost == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(("write", "mtbf"), [(0.1, 1000.0), (5.0, 1000.0), (60.0, 600.0)])
def test_no_other_interval_loses_less(write: float, mtbf: float):
    best = best_interval(write, mtbf)

    def lost(seconds: float) -> float:
        return lost_fraction(seconds, write_s=write, mtbf_s=mtbf, restart_s=30.0)

    others = [lost(best * factor) for factor in np.geomspace(0.2, 5.0, 101)]
    assert lost(best) <= min(others) + 2e-4
    assert lost(0.5 * best) > lost(best)
    assert lost(2.0 * best) > lost(best)


def test_a_cluster_that_always_fails_makes_no_progress():
    assert lost_fraction(1e6, write_s=1.0, mtbf_s=100.0, restart_s=1.0) == 1.0
    assert lost_fraction(1.0, write_s=1.0, mtbf_s=1.0, restart_s=1e6) == 1.0
    assert best_interval(300.0, 100.0) == 100.0


@pytest.mark.parametrize(
    "option",
    [
        *("--mtbf-hours", "--interconnect-gbs", "--checkpoint-gbs", "--restart-s"),
        *("--gpu-gib", "--tflops", "--mfu"),
    ],
)
def test_numbers_of_a_cluster_are_above_zero(option: str, capsys):
    arguments = ["plan", "--model", "3b", "--gpus", "8", "--gpu-gib", "80", option, "0"]
    with pytest.raises(SystemExit):
        main(arguments)
    assert "'0' is not a number above 0" in capsys.readouterr().err


def test_an_estimate_by_hand():
    """8 GPUs, 10 G parameters, 16 rows of 1,000 tokens; two micro-batches for each GPU."""
    counts = Counts(
        family="",
        parameters=10**10,
        trained=10**9,
        states=2 * 10**9,
        largest=0,
        embedding=0,
        num_layers=0,
        layer_bytes=0,
        layer_input_bytes=0,
        vocabulary=0,
    )
    workload = Workload("", lora_rank=16, max_tokens=1000, samples_per_step=16)
    cluster = Cluster(
        num_gpus=8,
        tflops=100.0,
        mfu=0.5,
        interconnect_gbs=100.0,
        checkpoint_gbs=1.0,
        mtbf_hours=8000.0,
        restart_s=60.0,
    )
    scale = estimate_scale(counts, workload, SHARDED, cluster, checkpoint_every=100)
    # forward and recomputed forward 2 x 2e10, backward 2e10 + 2e9, per token
    assert scale.compute_s == pytest.approx(16_000 * 6.2e10 / (8 * 100e12 * 0.5))
    # weights in bfloat16 gathered 4 times, gradients scattered twice, 7 of 8 parts sent
    assert scale.sent_bytes == pytest.approx((4 * 2e10 + 2 * 2e9) * 7 / 8)
    assert scale.send_s == pytest.approx(scale.sent_bytes / 100e9)
    assert scale.rows_per_s == pytest.approx(16 / scale.compute_s)
    assert scale.checkpoint_bytes == pytest.approx(1e9 * 4 + 2e9 * 4)
    assert scale.checkpoint_s == pytest.approx(12e9 / 8 / 1e9)
    assert scale.mtbf_s == pytest.approx(1000 * 3600)
    assert scale.lost_at_best < scale.lost_at_settings < 0.02
