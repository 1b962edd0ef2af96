"""The benchmark of the GPU path, as a dry run on the CPU."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.gpu.__main__ import render
from benchmarks.gpu.parity import Check, run_checks
from benchmarks.gpu.speed import StepFigures, decode, run_steps
from mmtpp.model import attention

CPU = torch.device("cpu")


def test_all_comparisons_hold_on_the_cpu():
    checks = run_checks(CPU, is_tiny=True)
    assert [check.name for check in checks if not check.holds] == []
    assert len(checks) == 9


def test_an_attention_that_crosses_windows_is_found(monkeypatch: pytest.MonkeyPatch):
    attend = attention._attend_by_segment

    def across(query, key, value, segments, scaling):
        whole = replace(segments, lengths=(query.shape[2],), blocks=())
        return attend(query, key, value, whole, scaling)

    monkeypatch.setattr(attention, "_attend_by_segment", across)
    missed = {check.name for check in run_checks(CPU, is_tiny=True) if not check.holds}
    assert "windows packed in a row, against one pass each" in missed
    assert "packed attention, against a masked pass" in missed
    assert "questions in branches, against rows of their own" in missed


def test_steps_decoding_and_report():
    steps = run_steps(CPU, is_tiny=True)
    assert [step.checkpointing for step in steps] == [True, False, True, False]
    assert all(0 < step.mfu < 1 and step.tokens_per_s > 0 for step in steps)
    assert decode(CPU, is_tiny=True) > 0
    over = StepFigures(4096, True, 100.0, 0.4, peak_gib=12.0, planned_gib=10.0)
    wrong = Check("a comparison", torch.float32, float("nan"), 1.0, 0.1)
    text = render([wrong], [over, *steps], 10.0, "a device")
    assert not over.holds
    assert not wrong.holds
    assert text.count("MISSED") == 2


def test_it_needs_neither_ray_nor_deepspeed():
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['ray', 'deepspeed', 'mlflow', 'optuna', 'pandas']))\n"
        "import benchmarks.gpu.__main__\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
