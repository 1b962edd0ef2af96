"""Evaluation: targets per CPU second of this project, EasyTPP and HoTPP, each by its own code."""

import itertools
from dataclasses import dataclass

from benchmarks.peers.bench import Bench, errors, figure, markdown_table, ratio, values
from benchmarks.peers.trials import Record, Trial
from benchmarks.quality.easytpp import DRAWS
from benchmarks.stack import danmaku_folder

QUESTIONS = {
    "forecasts": "likelihood and predictions",
    "likelihood": "likelihood alone",
}
SETS = ("earthquake", "danmaku")
OURS, ONE_NETWORK = "mmtpp, expert", "mmtpp, expert of one network"
EASYTPP_MODELS = (("NHP", 1), ("NHP", DRAWS), ("IntensityFree", 1))  # with numbers of samples
HOTPP_MODELS = ("NHP", "RMTPP")
BATCHES = (8, 64)  # parts of sequences; each project's fastest counts
FLOOR = "(floor 10)"
WIDTH = 64  # of all networks: the default of both projects' configurations and of the expert

Records = dict[str, list[Record]]


@dataclass(frozen=True, slots=True)
class SetRecords:
    """All trials on one data set.

    Attributes:
        rows: The trial that wrote the sequences.
        evaluations: Trials by the name of the model.
    """

    rows: Record
    evaluations: Records


def measure(bench: Bench) -> dict[str, SetRecords]:
    """Run the trials; returns them by data set."""
    danmaku_folder()  # exits without the data
    bench.install(["easytpp", "hotpp"])
    return {name: _measure_set(bench, name) for name in (SETS[:1] if bench.smoke else SETS)}


def _measure_set(bench: Bench, name: str) -> SetRecords:
    path = str(bench.work / f"{name}.json")
    num_targets = 300 if bench.smoke else 2000
    arguments = {"set_name": name, "path": path, "num_targets": num_targets}
    rows = bench.run(Trial("evaluation_rows", arguments))
    if rows.error:
        return SetRecords(rows, {})
    num_test = int(rows.result["num_test"])
    return SetRecords(rows, bench.interleave(_trials(name, path, num_test, smoke=bench.smoke)))


def _trials(set_name: str, path: str, num_test: int, *, smoke: bool) -> dict[str, Trial]:
    seconds, epochs, max_steps = (1.0, 1, 5) if smoke else (4.0, 10, 300)
    ours = {"set_name": set_name, "num_test": num_test, "width": WIDTH, "max_steps": max_steps}
    trials = {
        name: Trial("evaluation_ours", {**ours, "networks": networks})
        for name, networks in ((OURS, 3), (ONE_NETWORK, 1))
    }
    common = {"path": path, "seconds": seconds, "batches": list(BATCHES)}
    for model, samples in EASYTPP_MODELS[:1] if smoke else EASYTPP_MODELS:
        arguments = {**common, "model": model, "samples": samples}
        trials[f"EasyTPP {model}, {samples} samples"] = Trial(
            "evaluation_easytpp", arguments, environment="easytpp"
        )
    for model in HOTPP_MODELS[:1] if smoke else HOTPP_MODELS:
        arguments = {**common, "model": model, "hidden": WIDTH, "epochs": epochs}
        trials[f"HoTPP {model}"] = Trial("evaluation_hotpp", arguments, environment="hotpp")
    return trials


def section(records: dict[str, SetRecords]) -> list[str]:
    """Lines of the report."""
    lines = [
        "## Evaluation",
        "",
        "Targets per CPU second of one thread, by the evaluation that each project ships, on the "
        "same test sequences. All models were trained for seconds only: the figures are speeds.",
        "",
        "- **mmtpp** reads whole sequences. Likelihood: exact, of the clock's ticks, jointly with "
        "the type. Predictions: the whole distribution of the interval (quantiles, CRPS, "
        "calibration), and the type with and without the true interval.",
        "- **EasyTPP** cuts sequences into parts of 128 targets. Likelihood: the integral of the "
        "intensity over 20 points of an interval; a closed form for IntensityFree. Predictions: a "
        "time and a type from samples, by thinning with 100 proposals except for IntensityFree. "
        "One sample is the default; the mean of 100 is what `make quality` scores.",
        "- **HoTPP**, on the same parts. Likelihood: the integral by one random point for NHP, a "
        "closed form for RMTPP. Predictions: the expected time by thinning with up to 100 steps, "
        "and the most likely type.",
        "",
    ]
    for name, of_set in records.items():
        lines += _set_lines(name, of_set)
    return lines


def _set_lines(name: str, of_set: SetRecords) -> list[str]:
    if of_set.rows.error:
        return [f"### {name}", "", f"The sequences could not be written: `{of_set.rows.error}`", ""]
    evaluations = of_set.evaluations
    lines = [
        f"### {name}: {of_set.rows.result['targets']:,} targets, "
        f"{of_set.rows.result['num_types']} types",
        "",
        *markdown_table(
            ("model", "parameters", *QUESTIONS.values(), "accuracy of types", "peak MiB"),
            [_line(model, of_model) for model, of_model in evaluations.items()],
        ),
        "",
    ]
    for question, project, ours in itertools.product(
        QUESTIONS, ("EasyTPP", "HoTPP"), (OURS, ONE_NETWORK)
    ):
        rates = {model: _flat(of_model, question) for model, of_model in evaluations.items()}
        of_project = [model for model in evaluations if model.startswith(project)]
        if (found := ratio(rates, ours, of_project, "targets_per_cpu_s")) is not None:
            lines.append(f"- {QUESTIONS[question]}, {ours} over {found[0]}: **{found[1]}** {FLOOR}")
    return [*lines, *_target_lines(of_set), "", *errors(evaluations), ""]


def _target_lines(of_set: SetRecords) -> list[str]:
    """A line for every model that scored another number of targets."""
    expected = of_set.rows.result["targets"]
    counts = {
        model: record.result["targets"]
        for model, of_model in of_set.evaluations.items()
        for record in of_model
        if record.result
    }
    return [
        f"- {model} scored {count} targets instead of {expected}."
        for model, count in counts.items()
        if count != expected
    ]


def _flat(records: list[Record], question: str) -> list[Record]:
    """Records whose result is the measurement of one question."""
    return [Record(record.trial, record.result[question]) for record in records if record.result]


def _line(model: str, records: list[Record]) -> tuple[str, ...]:
    rates = [
        figure(values(_flat(records, question), "targets_per_cpu_s")) for question in QUESTIONS
    ]
    size = figure(values(records, "parameters")[:1])
    accuracy = figure(values(records, "accuracy")[:1], 3)
    memory = figure(values(_flat(records, "forecasts"), "peak_mib"))
    return (model, size, *rates, accuracy, memory)
