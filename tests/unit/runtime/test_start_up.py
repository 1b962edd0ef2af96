"""The parts of a start-up, their seconds, and the parts of a worker that resumes."""

import time

import psutil
import pytest

from mmtpp.runtime.start_up import StartUp


def test_every_part_lasts_from_the_end_of_the_part_before():
    start_up = StartUp(100.0).with_part("checks", at=101.5).with_part("plan", at=105.0)
    assert start_up.metrics() == {
        "start_up/checks_s": 1.5,
        "start_up/plan_s": 3.5,
        "start_up/total_s": 5.0,
    }
    assert str(start_up) == "5.0 s (checks 1.5, plan 3.5)"


def test_a_part_does_not_end_before_the_part_before_it():
    """A worker of an earlier training, or another machine's clock."""
    start_up = StartUp(100.0).with_part("tracking", at=110.0).with_part("scheduling", at=90.0)
    assert start_up.metrics()["start_up/scheduling_s"] == 0.0
    assert start_up.metrics()["start_up/total_s"] == 10.0


def test_a_start_up_without_parts_took_no_time():
    assert StartUp(100.0).metrics() == {"start_up/total_s": 0.0}


def test_a_new_run_counts_the_driver_and_the_start_of_the_process():
    began = psutil.Process().create_time()
    start_up = StartUp(began - 7.0).with_part("tracking", at=began - 2.0).in_worker(resumes=False)
    metrics = start_up.metrics()
    assert metrics["start_up/tracking_s"] == pytest.approx(5.0)
    assert metrics["start_up/scheduling_s"] == pytest.approx(2.0)
    assert metrics["start_up/processes_s"] == pytest.approx(time.time() - began, abs=1.0)


def test_a_resumed_run_counts_only_its_own_process():
    start_up = StartUp(0.0).with_part("tracking", at=1.0).in_worker(resumes=True)
    assert [part for part, _ in start_up.ends] == ["processes"]
    assert start_up.began_at == psutil.Process().create_time()
