"""Loss as a function of model size, data and context at fixed compute, on flights.

    make scaling        an hour and a half on two cores; resumes where it stopped
    python -m benchmarks.sweeps.scaling sweep.max_hours=1      reports the trials of one hour

Prepares the demo's flights, runs ``tune/configs/scaling.toml`` and fits the exponents. Writes
``scaling.md`` and ``scaling.png`` next to this file.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import finish, machine
from benchmarks.stack import own_stack
from mmtpp.config.load import with_values
from mmtpp.core.training.training_metrics import TRAINED_PARAMETERS, VALIDATION_EVENT_NLL
from mmtpp.data.prepare import prepare
from mmtpp.runtime.logs import start_logging
from mmtpp.sweep.load_sweep import load_sweep
from mmtpp.sweep.run_sweep import run_sweep
from mmtpp.sweep.scaling import (
    CONTEXT,
    Trials,
    build_report,
    fit_law,
    predict_losses,
)
from mmtpp.sweep.trial_table import markdown_table

RESULT = Path(__file__).with_suffix(".md")
HOME = Path(os.environ.get("MMTPP_HOME", ".mmtpp")).absolute() / "scaling"
CONFIG = Path(__file__).parents[2] / "tune" / "configs" / "scaling.toml"
FLIGHTS = {"source.kind": "flights", "source.uri": "s3://mmtpp/flights/raw"}
BUDGET = "training.max_flops"
COLUMNS = (
    BUDGET,
    CONTEXT,
    "model.tiny_width",
    "model.tiny_layers",
    TRAINED_PARAMETERS,
    "step",
    VALIDATION_EVENT_NLL,
)


def best_sizes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The size with the smallest loss, for each budget and context."""
    best: dict[tuple[float, float], dict[str, Any]] = {}
    for row in rows:
        place = float(str(row[BUDGET])), float(str(row[CONTEXT]))
        if place not in best or float(str(row[VALIDATION_EVENT_NLL])) < float(
            str(best[place][VALIDATION_EVENT_NLL])
        ):
            best[place] = row
    return [{name: best[place][name] for name in COLUMNS} for place in sorted(best)]


def laws_by_context(trials: Trials) -> list[dict[str, Any]]:
    """Exponents fitted separately to the trials of each context."""
    laws: list[dict[str, Any]] = []
    for context in sorted(set(trials.context.tolist())):
        alone = trials.take(np.flatnonzero(trials.context == context))
        law = fit_law(alone)
        error = float(np.abs(predict_losses(law, alone) / alone.loss - 1).mean())
        laws.append({"context": int(context), **law.exponents, "floor": law.floor, "off by": error})
    return laws


def main() -> int:
    """Run the sweep, fit the laws, print and write the results."""
    start_logging()
    with own_stack(HOME):
        sweep = load_sweep(CONFIG, sys.argv[1:])
        prepare(with_values(sweep.config, FLIGHTS))
        result: dict[str, Any] = run_sweep(sweep)
    trials = Trials.from_result(result)
    text, figure = build_report(trials)
    laws = laws_by_context(trials)
    rows = [row for row in result["trials"] if row["status"] == "finished"]
    RESULT.with_suffix(".png").write_bytes(figure)
    return finish(
        "\n\n".join(
            [
                "# Loss against model size, data and context",
                f"`make scaling`; {machine('torch', 'ray', used='both used')}. Fresh tiny models "
                "on flights until September, one seed. Parameters are those of the language model. "
                f"{len(rows)} of {len(sweep.grid())} trials, {result['failed']} failed.",
                text.strip(),
                "![](scaling.png)",
                "Exponents fitted to each context, with the mean relative error of the law:",
                markdown_table(laws, list(laws[0])),
                "The best size of each budget and context:",
                markdown_table(best_sizes(rows), list(COLUMNS)),
                "All trials:",
                markdown_table(
                    [{name: row[name] for name in COLUMNS} for row in rows], list(COLUMNS)
                ),
            ]
        )
        + "\n",
        RESULT,
    )


if __name__ == "__main__":
    sys.exit(main())
