"""Training: the same model on the same windows, with each project's own loop and batches."""

import statistics
from dataclasses import dataclass
from typing import Any

from benchmarks.peers.bench import Bench, errors, figure, markdown_table, ratio, values
from benchmarks.peers.training_operators import ATTENTION, BETWEEN, OTHERS, PRODUCTS
from benchmarks.peers.trials import Record, Trial
from benchmarks.stack import danmaku_folder

OURS, IN_ORDER, GROUPED, TRL = "mmtpp", "Trainer, padded", "Trainer, by length", "TRL, packed"
PADDED_LF, PACKED_LF = "LLaMA-Factory, padded", "LLaMA-Factory, neat packing"


@dataclass(frozen=True, slots=True)
class Size:
    """Size of a case.

    Attributes:
        per_update: Windows in an update.
        num_updates: Number of updates.
        num_held_out: Windows for the loss after the training.
        batches: Sizes of the Trainer's batches.
        packed_batches: Sizes of TRL's batches, in packed rows; none where TRL has other tokens.
        packed_rows: Packed rows in an update, as many as mmtpp's.
        llamafactory_batch: Size of LLaMA-Factory's padded batches, a fast one of the
            Trainer that it extends; 0 where LLaMA-Factory has other tokens.
    """

    per_update: int
    num_updates: int
    num_held_out: int
    batches: tuple[int, ...]
    packed_batches: tuple[int, ...]
    packed_rows: int
    llamafactory_batch: int


SIZES = {
    "short": Size(80, 12, 80, (8, 16, 40), (1, 2), 4, 8),
    "long": Size(4, 10, 6, (1, 2), (1,), 4, 1),
    "images": Size(8, 10, 8, (1, 2, 4), (), 0, 0),
}
SMOKE = {
    "short": Size(40, 3, 4, (8,), (1,), 2, 8),
    "long": Size(2, 3, 2, (1,), (1,), 2, 1),
    "images": Size(4, 3, 2, (2,), (), 0, 0),
}
FLOORS = {
    "short": 1.5,
    "long": 2.0,
    "images": 1.5,
}  # of mmtpp's useful tokens/s over those of every peer
TITLES = {
    "short": "Short sequences: EasyTPP's earthquakes",
    "long": "Long windows: danmaku that fill a row of 2,048 tokens",
    "images": "Windows with images: flights, with the map of the airport",
}

KINDS = (PRODUCTS, ATTENTION, OTHERS, BETWEEN)

Records = dict[str, list[Record]]


@dataclass(frozen=True, slots=True)
class CaseRecords:
    """All trials of a case.

    Attributes:
        rows: The trial that wrote the windows.
        trainings: Trials by name.
        profiles: Trials of two loops whose operators were timed, by name.
    """

    rows: Record
    trainings: Records
    profiles: dict[str, Record]


def measure(bench: Bench) -> dict[str, CaseRecords]:
    """Run the trials; returns them by case."""
    data = danmaku_folder().parent
    bench.install(["trl", "llamafactory"])
    measured: dict[str, CaseRecords] = {}
    for name, size in (SMOKE if bench.smoke else SIZES).items():
        folder = str(bench.work / f"windows_{name}")
        arguments = {"name": name, "folder": folder, "per_update": size.per_update}
        arguments |= {"num_updates": size.num_updates, "num_held_out": size.num_held_out}
        rows = bench.run(Trial("training_rows", arguments), {"data": str(data)})
        trials = {} if rows.error else _trials(size, folder)
        trainings = bench.interleave(trials)
        profiled = {loop: trials[loop] for loop in _profiled_loops(trainings)}
        profiles = {
            loop: bench.run(Trial(trial.module, {**trial.arguments, "profiles": True}))
            for loop, trial in profiled.items()
        }
        measured[name] = CaseRecords(rows, trainings, profiles)
    return measured


def _profiled_loops(trainings: Records) -> list[str]:
    """This project's loop, and the fastest one of transformers' Trainer."""
    rates = {
        loop: statistics.median(rates)
        for loop, records in trainings.items()
        if loop.startswith((IN_ORDER, GROUPED)) and (rates := values(records, "tokens_per_s"))
    }
    return [OURS, max(rates, key=rates.__getitem__)] if rates else []


def _trials(size: Size, folder: str) -> dict[str, Trial]:
    trials = {OURS: Trial("training_ours", {"folder": folder})}
    for batch in size.batches:
        for title, sampling in ((IN_ORDER, "sequential"), (GROUPED, "group_by_length")):
            trials[f"{title}, {batch} a batch"] = Trial(
                "training_trainer", {"folder": folder, "batch": batch, "sampling": sampling}
            )
    for batch in size.packed_batches:
        trials[f"{TRL}, {batch} rows a batch"] = Trial(
            "training_trl",
            {"folder": folder, "batch": batch, "rows_per_update": size.packed_rows},
            environment="trl",
        )
    batch = size.llamafactory_batch
    if not batch:
        return trials
    trials[f"{PADDED_LF}, {batch} a batch"] = _llamafactory(folder, size, batch, packs=False)
    trials[f"{PACKED_LF}, 1 row a batch"] = _llamafactory(folder, size, 1, packs=True)
    return trials


def _llamafactory(folder: str, size: Size, batch: int, *, packs: bool) -> Trial:
    arguments = {"folder": folder, "batch": batch, "packs": packs, "packed_rows": size.packed_rows}
    return Trial("training_llamafactory", arguments, environment="llamafactory")


def section(records: dict[str, CaseRecords]) -> list[str]:
    """Lines of the report."""
    lines = [
        "## Training",
        "",
        "The tiny Qwen2.5-VL from the same weights, float32; AdamW with a constant rate. Useful "
        "tokens are those of the windows, without padding. Memory is the "
        "peak of the process, with its libraries. The loss is that of held-out windows after the "
        "training, computed by one function for all, one window at a time. mmtpp and the padded "
        "Trainer have the same windows in every update; grouped and TRL's updates have others.",
        "",
    ]
    for name, of_case in records.items():
        lines += _case_lines(name, of_case)
    return lines


def _case_lines(name: str, of_case: CaseRecords) -> list[str]:
    if of_case.rows.error:
        return [f"### {TITLES[name]}", "", f"No windows: `{of_case.rows.error}`", ""]
    rows, trainings = of_case.rows.result, of_case.trainings
    lines = [
        f"### {TITLES[name]}",
        "",
        f"{rows['windows']} windows, median {rows['median_tokens']:,.0f} tokens; "
        f"{rows['trained_tokens']:,} tokens are trained once.{_images(rows)}",
        "",
        *markdown_table(
            (
                *("loop", "useful tokens/s", "useful tokens per CPU s", "events/s"),
                *("peak MiB", "updates", "held-out nats/token"),
            ),
            [_line(loop, of_loop) for loop, of_loop in trainings.items()],
        ),
        "",
    ]
    for title in (IN_ORDER, GROUPED, TRL, PADDED_LF, PACKED_LF):
        of_kind = [loop for loop in trainings if loop.startswith(title)]
        if (found := ratio(trainings, OURS, of_kind, "tokens_per_s")) is not None:
            lines.append(
                f"- mmtpp, useful tokens/s over {found[0]}: **{found[1]}** (floor {FLOORS[name]:g})"
            )
    lines += [*_loss_lines(trainings), *_crossing_lines(trainings), *errors(trainings), ""]
    return lines + _profile_lines(name, of_case)


def _images(rows: dict[str, Any]) -> str:
    if not rows.get("distinct_images"):
        return ""
    return (
        f" A window shows {rows['median_images']:,.0f} images (median); there are "
        f"{rows['distinct_images']:,} different ones. mmtpp encodes equal images of a row once."
    )


def _profile_lines(name: str, of_case: CaseRecords) -> list[str]:
    """Where the time goes, and what share of the processor's peak the floor would need."""
    profiles = {loop: record.result for loop, record in of_case.profiles.items() if record.result}
    if OURS not in profiles or len(profiles) < 2:
        return []
    ours = profiles[OURS]
    rows = [
        (loop, *(f"{result['operators'][kind]:.1f}" for kind in KINDS))
        for loop, result in profiles.items()
    ]
    per_token, peak = ours["flops_per_token"], ours["peak_flops"]
    needs = f"{per_token / 1e6:.2f} million operations"
    rates = {loop: values(of_case.trainings[loop], "tokens_per_s") for loop in profiles}
    of_peak = {
        loop: statistics.median(of_loop) * per_token / peak for loop, of_loop in rates.items()
    }
    [best] = [loop for loop in profiles if loop != OURS]
    return [
        "Where the time goes, ms per 1,000 useful tokens, with the profiler of PyTorch (one run):",
        "",
        *markdown_table(("loop", *KINDS), rows),
        "",
        f"- The model needs {needs} per useful token. One core has "
        f"{peak / 1e9:,.0f}·10⁹ a second in products of large matrices: "
        + ", ".join(f"{loop} {share:.0%} of it" for loop, share in of_peak.items())
        + f". {FLOORS[name]:g} times the speed of {best} is {FLOORS[name] * of_peak[best]:.0%}.",
        "",
    ]


def _line(loop: str, records: list[Record]) -> tuple[str, ...]:
    return (
        loop,
        figure(values(records, "tokens_per_s")),
        figure(values(records, "tokens_per_cpu_s")),
        figure(values(records, "events_per_s")),
        figure(values(records, "peak_mib")),
        figure(values(records, "updates")[:1]),
        figure(values(records, "loss")[:1], 6),
    )


def _loss_lines(trainings: Records) -> list[str]:
    """Differences between the losses of loops with the same updates.

    Batches of another size sum in another order, and AdamW's first steps have the same length
    however small a gradient is, so that the rounding shows. The differences among the Trainer's own
    sizes are the measure of it.
    """
    padded = [
        loss
        for loop, of_loop in trainings.items()
        if loop.startswith(IN_ORDER)
        for loss in values(of_loop, "loss")
    ]
    ours = values(trainings[OURS], "loss")
    if not ours or not padded:
        return []
    apart = max(abs(mine - other) for mine in ours for other in padded)
    return [
        f"- Same updates, losses after them: mmtpp and the padded Trainer differ by at most "
        f"{apart:.1e} nats/token; the Trainer's own sizes of batches by at most "
        f"{max(padded) - min(padded):.1e}"
    ]


def _crossing_lines(trainings: Records) -> list[str]:
    """Whether TRL's packed windows attend to each other."""
    found = [
        record.result["crosses"]
        for loop, of_loop in trainings.items()
        if loop.startswith(TRL)
        for record in of_loop
        if record.result.get("crosses") is not None
    ]
    if not any(loop.startswith(TRL) for loop in trainings):
        return []
    if not found:
        return ["- TRL: no row of the first batch has two windows, so none can see another."]
    change = max(found)
    verdict = "see each other" if change > 1e-3 else "do not see each other"
    return [
        f"- TRL: windows in a packed row {verdict} on a CPU. Another first window changes the "
        f"logits of the later ones by up to {change:.2g}. TRL marks windows by positions and "
        "`cu_seq_lens`; transformers' Qwen2.5-VL reads these with flash attention only."
    ]
