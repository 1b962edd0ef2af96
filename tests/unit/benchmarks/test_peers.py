"""Trials, figures and reports of the comparison with other projects."""

import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peers import environments, feed_part, training_part
from benchmarks.peers.bench import ratio
from benchmarks.peers.evaluation_measure import parts_of
from benchmarks.peers.measured_process import cpu_seconds
from benchmarks.peers.stand_ins import import_with_stand_ins
from benchmarks.peers.training_case import Case
from benchmarks.peers.training_measure import (
    NO_LABEL,
    WARM_UP,
    UpdateMeter,
    held_out_loss,
    image_inputs,
    labels_of,
    pad_windows,
)
from benchmarks.peers.training_operators import ATTENTION, BETWEEN, OTHERS, PRODUCTS, OperatorTimes
from benchmarks.peers.training_ours import pack_windows
from benchmarks.peers.trials import Record, Trial, TrialFile
from benchmarks.quality.neural import _by_sequence
from benchmarks.short_rows import batcher_of
from mmtpp.model.base_folder import build_tiny
from mmtpp.model.event_model import EventModel
from tests.helpers.tiny_models import tiny_vocabulary

TRIAL = Trial("some_module", {"size": 2})


def _interpreter(folder: Path, script: str) -> Path:
    """A program in place of an interpreter; it counts its calls in ``calls``."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\necho call >> {folder}/calls\n{script}\n")
    path.chmod(0o700)
    return path


def _calls(folder: Path) -> int:
    return len((folder / "calls").read_text().splitlines())


def test_a_finished_trial_is_kept_by_later_runs(tmp_path: Path):
    python = _interpreter(tmp_path, "echo a warning\necho '{\"rate\": 3}'")
    path = tmp_path / "work" / "trials.jsonl"
    assert TrialFile(path).run(TRIAL, python).result == {"rate": 3}
    assert TrialFile(path).run(TRIAL, python).result == {"rate": 3}
    assert _calls(tmp_path) == 1


def test_another_repetition_is_another_trial(tmp_path: Path):
    python = _interpreter(tmp_path, "echo '{}'")
    file = TrialFile(tmp_path / "trials.jsonl")
    for number in (0, 1):
        file.run(Trial("some_module", {"size": 2}, number), python)
    assert _calls(tmp_path) == 2


def test_a_failed_trial_says_why_and_runs_again(tmp_path: Path):
    path = tmp_path / "trials.jsonl"
    failing = _interpreter(tmp_path, "echo first >&2\necho 'ValueError: no rows' >&2\nexit 1")
    assert TrialFile(path).run(TRIAL, failing).error == "ValueError: no rows"
    working = _interpreter(tmp_path, "echo '{}'")
    assert TrialFile(path).run(TRIAL, working).error == ""
    assert _calls(tmp_path) == 2


def test_further_arguments_reach_the_trial_and_do_not_identify_it(tmp_path: Path):
    python = _interpreter(tmp_path, 'printf "%s\\n" "$3"')
    file = TrialFile(tmp_path / "trials.jsonl")
    assert file.run(TRIAL, python, further={"pid": 1}).result == {"size": 2, "pid": 1}
    assert file.run(TRIAL, python, further={"pid": 2}).result == {"size": 2, "pid": 1}


def test_cpu_seconds_count_processes_that_have_ended():
    before, rusage = cpu_seconds([os.getpid()]), resource.getrusage(resource.RUSAGE_CHILDREN)
    work = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", work], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - rusage.ru_utime - rusage.ru_stime
    assert spent > 0.5
    assert cpu_seconds([os.getpid()]) - before == pytest.approx(spent, abs=0.2)


def test_a_stand_in_is_removed_after_the_import():
    assert import_with_stand_ins("colorsys", ["no_such_package.part:Thing"]).rgb_to_hsv
    assert "no_such_package.part" not in sys.modules


@pytest.mark.parametrize("name", environments.names())
def test_every_package_of_an_environment_has_an_exact_version(name: str):
    lines = (environments.FOLDER / f"{name}.txt").read_text().splitlines()
    packages = [line for line in lines if line and not line.startswith("#")]
    assert packages
    assert all(line.count("==") == 1 and " " not in line for line in packages)


def _records(*figures: float | None) -> list[Record]:
    return [
        Record(Trial("m", {}, number), {} if rate is None else {"rate": rate})
        for number, rate in enumerate(figures)
    ]


def test_a_ratio_is_of_the_same_repetitions_and_of_the_fastest_other():
    records = {
        "ours": _records(10, 20, 30),
        "slow": _records(1, 1, 1),
        "fast": _records(None, 10, 5),  # its first repetition failed
    }
    assert ratio(records, "ours", ["slow", "fast"], "rate") == ("fast", "4.00 [2.00-6.00]")


def test_without_figures_there_is_no_ratio():
    assert ratio({"ours": _records(1), "other": _records(None)}, "ours", ["other"], "rate") is None


def test_parts_have_the_targets_of_the_sequences_as_easytpp_counts_them():
    sequences = [
        [list(np.arange(length, dtype=float)), [0] * length] for length in (1, 2, 129, 300)
    ]
    parts = parts_of(sequences)
    expected = _by_sequence(sequences, [0.0] * len(parts), 1.0)
    assert sum(len(times) - 1 for times, _ in parts) == sum(targets for targets, _ in expected)
    assert max(len(times) - 1 for times, _ in parts) == 128


def _case(lengths: list[int], held_out: int) -> Case:
    rng = np.random.default_rng(0)
    return Case(
        tiny_vocabulary(),
        [rng.integers(1, 200, length).astype(np.int32) for length in lengths],
        [np.ones(length, dtype=np.uint8) for length in lengths],
        np.array(lengths) // 5,
        per_update=2,
        num_train=len(lengths) - held_out,
        frames=np.zeros((0, 56, 56, 3), dtype=np.uint8),
        image_frame=[np.zeros(0, dtype=np.int32) for _ in lengths],
    )


def _case_with_images(shown: list[list[int]]) -> Case:
    """Windows of three text tokens, then an image and a text token for each shown frame."""
    case = _case([3] * len(shown), 1)
    pad = case.vocabulary.special("<|image_pad|>")
    image = np.array([pad] * 4 + [11], dtype=np.int32)
    return replace(
        case,
        ids=[
            np.concatenate([ids, *[image] * len(frames)])
            for ids, frames in zip(case.ids, shown, strict=True)
        ],
        modality=[
            np.array([3, 3, 3, *[0, 0, 0, 0, 3] * len(frames)], dtype=np.uint8) for frames in shown
        ],
        frames=np.random.default_rng(1).integers(0, 255, (3, 56, 56, 3)).astype(np.uint8),
        image_frame=[np.array(frames, dtype=np.int32) for frames in shown],
    )


def test_a_row_has_equal_images_once_and_a_batch_has_every_shown_one():
    case = _case_with_images([[2, 0, 2], [0, 2], [1]])
    [row] = pack_windows(case, range(2))
    assert np.array_equal(row.frames, case.frames[[0, 2]])
    assert sorted(row.image_frame.tolist()) == [0, 0, 1, 1, 1]
    inputs = image_inputs(case, range(2))
    assert inputs["image_grid_thw"].tolist() == [[1, 4, 4]] * 5
    assert torch.equal(inputs["pixel_values"][:16], inputs["pixel_values"][32:48])
    assert labels_of(case, 2).tolist() == [
        NO_LABEL,
        *case.ids[2][1:3].tolist(),
        *[NO_LABEL] * 4,
        11,
    ]


def test_both_loops_score_windows_with_images_alike():
    """The held-out loss of transformers' forward pass is that of a packed row."""
    case = _case_with_images([[0], [0], [2, 0, 2]])
    model = build_tiny(case.vocabulary, seed=0)
    expected = held_out_loss(model, case)
    [row] = pack_windows(case, range(2, 3))
    event_model = EventModel(model).eval()
    with torch.no_grad():
        nll, _ = event_model(batcher_of(case.vocabulary)(row))
    assert float(nll.double().mean()) == pytest.approx(expected, rel=1e-5)


def test_packed_rows_hold_the_windows_of_an_update():
    case = _case([1500, 900, 700, 5, 6], 1)
    rows = pack_windows(case, range(1, 4))
    held = sorted(
        row.input_ids[row.segment == segment].tolist()
        for row in rows
        for segment in range(int(row.segment.max()) + 1)
    )
    assert held == sorted(case.ids[window].tolist() for window in (1, 2, 3))


def test_padding_is_no_label_and_not_attended():
    batch = pad_windows(
        [{"input_ids": [7, 8, 9], "labels": [-100, 8, 9]}, {"input_ids": [5], "labels": [-100]}]
    )
    assert batch["labels"].tolist() == [[-100, 8, 9], [-100, -100, -100]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_the_held_out_loss_is_the_mean_over_tokens_of_held_out_windows():
    case = _case([4, 4, 9, 5], 2)
    model = build_tiny(case.vocabulary, seed=0)
    nats, count = 0.0, 0
    for ids in case.ids[2:]:
        tokens = torch.tensor(ids.astype(np.int64))[None]
        with torch.no_grad():
            output = model(
                input_ids=tokens, labels=tokens, mm_token_type_ids=torch.zeros_like(tokens)
            )
        nats += float(output.loss) * (len(ids) - 1)  # transformers' own mean over its labels
        count += len(ids) - 1
    assert held_out_loss(model, case) == pytest.approx(nats / count, rel=1e-6)


def test_updates_before_the_end_of_the_warm_up_are_not_measured():
    case = _case([4, 4, 9, 5], 2)
    meter = UpdateMeter(case)
    for update in range(WARM_UP):
        meter.finish_update(100 * (update + 1), 10)
    with pytest.raises(ValueError, match="not measured"):
        meter.result(None, 200, 20)


IDS = [3, 1, 2, 0, 5, 4, 7, 6]


def _feeds(resumed: list[int], *, first_s: float = 0.5) -> feed_part.FeedRecords:
    epoch = {"ids": IDS, "checksum": 9, "rows_per_s": 10.0, "cpu_ms_per_row": 2.0, "first_s": 1.0}
    epochs = {
        name: [Record(Trial("m", {}), epoch)]
        for name in (feed_part.OURS, feed_part.HERE, "MosaicML Streaming, 0 workers")
    }
    rest = Record(Trial("m", {}), {"ids": resumed, "first_s": first_s})
    rows = {"rows": len(IDS), "tokens": 80, "events": 40, "prepare_s": 1.0, "finished_rows_s": 1.0}
    return feed_part.FeedRecords(
        Record(Trial("m", {}), rows),
        Record(Trial("m", {}), {"seconds": 1.0}),
        epochs,
        {feed_part.STREAMING: [rest]},
    )


@pytest.mark.parametrize(
    ("resumed", "verdict"),
    [
        (IDS[4:], "yes"),
        ([4, 5, 7, 6], "no: 0 rows of the rest missing, 0 rows again"),
        ([4, 5, 7, 1], "no: 1 rows of the rest missing, 1 rows again"),
        (IDS, "no: 0 rows of the rest missing, 4 rows again"),
    ],
)
def test_a_resumed_feed_continues_exactly_or_not(resumed: list[int], verdict: str):
    lines = feed_part.section(_feeds(resumed))
    assert f"| MosaicML Streaming | 0.50 | {verdict} |" in lines


def test_a_feed_with_other_content_is_reported():
    records = _feeds(IDS[4:])
    other = records.epochs["MosaicML Streaming, 0 workers"][0]
    records.epochs["other"] = [Record(Trial("m", {}), {**other.result, "checksum": 8})]
    lines = feed_part.section(records)
    assert any(line.startswith("| other ") and "content differs" in line for line in lines)


def _trainings(crosses: float | None) -> dict[str, training_part.CaseRecords]:
    def record(**result: object) -> list[Record]:
        common = {"tokens_per_s": 10.0, "events_per_s": 2.0, "peak_mib": 1.0, "updates": 3}
        return [Record(Trial("m", {}), {**common, **result})]

    trainings = {
        training_part.OURS: record(loss=2.0, tokens_per_s=30.0),
        f"{training_part.IN_ORDER}, 1 a batch": record(loss=2.00001),
        f"{training_part.IN_ORDER}, 2 a batch": record(loss=1.99998, tokens_per_s=9.0),
        f"{training_part.TRL}, 1 rows a batch": record(loss=1.9, crosses=crosses),
    }
    rows = Record(Trial("m", {}), {"windows": 4, "median_tokens": 9.0, "trained_tokens": 36})
    operators = dict.fromkeys(training_part.KINDS, 1.25)
    ours = {"operators": operators, "flops_per_token": 2e9, "peak_flops": 1e11}
    profiles = {
        training_part.OURS: Record(Trial("m", {}), ours),
        f"{training_part.IN_ORDER}, 1 a batch": Record(Trial("m", {}), {"operators": operators}),
    }
    return {"short": training_part.CaseRecords(rows, trainings, profiles)}


def test_the_report_says_what_share_of_the_peak_the_floor_needs():
    """30 and 10 tokens/s of 2·10⁹ operations each, of 10¹¹ a second: 60 % and 20 %."""
    lines = training_part.section(_trainings(None))
    other = f"{training_part.IN_ORDER}, 1 a batch"
    assert f"| {other} | 1.2 | 1.2 | 1.2 | 1.2 |" in lines
    (line,) = [line for line in lines if "of large matrices" in line]
    assert f"mmtpp 60% of it, {other} 20% of it" in line
    assert line.endswith(f"1.5 times the speed of {other} is 30%.")


def test_operators_are_timed_by_kind():
    matrix, heads = torch.randn(1500, 1500), torch.randn(1, 2, 900, 64)
    times = OperatorTimes()
    times.start()
    for _ in range(5):
        matrix @ matrix
    products_only = times.stop()
    times = OperatorTimes()
    times.start()
    torch.nn.functional.scaled_dot_product_attention(heads, heads, heads)
    time.sleep(0.3)
    attention = times.stop()
    assert products_only[PRODUCTS] > 0.9 * sum(products_only.values())
    assert products_only[ATTENTION] == 0
    assert attention[ATTENTION] > 10 * (attention[PRODUCTS] + attention[OTHERS])
    assert attention[BETWEEN] >= 0.3


def test_the_report_of_trainings_compares_losses_of_the_same_updates_only():
    lines = training_part.section(_trainings(0.6))
    (line,) = [line for line in lines if "Same updates" in line]
    assert "differ by at most 2.0e-05 nats/token" in line
    assert line.endswith("by at most 3.0e-05")
    assert (
        f"- mmtpp, useful tokens/s over {training_part.IN_ORDER}, 1 a batch: **3.00** (floor 1.5)"
        in lines
    )


@pytest.mark.parametrize(
    ("crosses", "expected"),
    [(0.6, " see each other"), (0.0, "do not see each other"), (None, "no row of the first batch")],
)
def test_the_report_says_whether_packed_windows_see_each_other(
    crosses: float | None, expected: str
):
    lines = training_part.section(_trainings(crosses))
    assert sum(expected in line and line.startswith("- TRL:") for line in lines) == 1


def test_a_failed_trial_is_in_the_report():
    trainings = _trainings(0.6)
    trainings["short"].trainings["broken"] = [Record(Trial("m", {}), error="ValueError: no")]
    lines = training_part.section(trainings)
    assert "- broken failed: `ValueError: no`" in lines
