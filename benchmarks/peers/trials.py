"""Trials and the file of finished trials, which later runs keep."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement in a process of its own.

    Attributes:
        module: Module of ``benchmarks.peers`` that measures.
        arguments: Arguments of its function ``run``; they identify the trial.
        number: Number of the repetition, from 0.
        environment: Environment of the peer; empty for this project's own.
    """

    module: str
    arguments: dict[str, Any]
    number: int = 0
    environment: str = ""

    @property
    def key(self) -> str:
        """Identity of the trial in the file."""
        return json.dumps(asdict(self), sort_keys=True)


@dataclass(frozen=True, slots=True)
class Record:
    """A finished trial.

    Attributes:
        trial: The trial.
        result: What it measured; empty if it failed.
        error: Last line of its errors; empty if it did not fail.
    """

    trial: Trial
    result: dict[str, Any] = field(default_factory=dict)
    error: str = ""


class TrialFile:
    """Runs trials and keeps their results, one JSON object per line.

    Args:
        path: The file; it is created if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        self._records = {record.trial.key: record for record in map(_from_json, lines)}

    def run(
        self, trial: Trial, python: Path, *, further: Mapping[str, Any] | None = None
    ) -> Record:
        """Run a trial unless a result is kept; a trial that failed runs again.

        Args:
            trial: The trial.
            python: Interpreter of its environment.
            further: Arguments that differ in every run and do not identify the trial, such as
                addresses of servers.
        """
        kept = self._records.get(trial.key)
        if kept is not None and not kept.error:
            return kept
        started = time.monotonic()
        record = _run(trial, python, {**trial.arguments, **(further or {})})
        seconds = time.monotonic() - started
        named = " ".join(str(value) for value in trial.arguments.values() if str(value).isalnum())
        outcome = record.error or "done"
        print(f"  {trial.module} {named} #{trial.number}: {seconds:.0f} s, {outcome}", flush=True)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(record)) + "\n")
        self._records[trial.key] = record
        return record


def _from_json(line: str) -> Record:
    tree = json.loads(line)
    return Record(Trial(**tree["trial"]), tree["result"], tree["error"])


def _run(trial: Trial, python: Path, arguments: dict[str, Any]) -> Record:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    try:
        process = subprocess.run(
            [str(python), "-m", f"benchmarks.peers.{trial.module}", json.dumps(arguments)],
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env=environment,
            cwd=ROOT,
        )
    except subprocess.TimeoutExpired:
        return Record(trial, error=f"did not end within {TIMEOUT_S:.0f} s")
    if process.returncode:
        lines = process.stderr.strip().splitlines() or [f"ended with {process.returncode}"]
        print("\n".join(lines[-20:]), file=sys.stderr)
        return Record(trial, error=lines[-1][:300])
    return Record(trial, json.loads(process.stdout.splitlines()[-1]))
