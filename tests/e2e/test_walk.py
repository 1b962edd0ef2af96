"""A newcomer with a table of events follows "Your own events", and nothing else, to a report."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
MINUTES = 15


def _write_table(path: Path) -> None:
    """A learnable pattern: sixty machines start, give alarms at shrinking intervals and stop."""
    rng = np.random.default_rng(0)
    lines = ["machine,time,what,note"]
    for machine in range(60):
        now = 0.0
        for _ in range(6):
            for step, (what, wait) in enumerate(
                [("start", 60), ("alarm", 20), ("alarm", 5), ("stop", 2)]
            ):
                now += round(float(wait * rng.uniform(0.8, 1.2)), 2)
                lines.append(f"pump-{machine},{now:.2f},{what},{what} {step} of pump-{machine}")
    path.write_text("\n".join(lines) + "\n")


def _walk() -> list[str]:
    """The commands of the page, without the installation, which was done before these tests."""
    page = (ROOT / "docs" / "own-events.md").read_text()
    [block] = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [line.split("   #")[0].strip() for line in block.replace("\\\n", " ").splitlines()]
    assert commands[0].startswith("make setup")
    assert commands[-1].startswith("mlflow ui")
    return commands[1:-1]


@pytest.mark.slow
@pytest.mark.timeout(60 * MINUTES)
def test_the_walk_ends_in_a_report(tmp_path: Path):
    _write_table(tmp_path / "events.csv")
    for folder in ("jobs", "mmtpp"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    services = ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "MLFLOW_TRACKING_URI", "AWS_ENDPOINT_URL")
    environment = {key: value for key, value in os.environ.items() if key not in services}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}:{environment['PATH']}",
        "PYTHONPATH": str(tmp_path),
        "MMTPP_CACHE": str(tmp_path / "cache"),
    }
    started = time.monotonic()
    outputs: dict[str, subprocess.CompletedProcess] = {}
    for command in _walk():
        process = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        output = f"{process.stdout[-3000:]}\n{process.stderr[-3000:]}"
        assert process.returncode == 0, f"{command}\n{output}"
        outputs[command.split()[1]] = process
    assert time.monotonic() - started < 60 * MINUTES
    assert "doctor" in " ".join(_walk())
    # a summary names the report, and every job names the next command
    assert "python jobs/finetune.py" in outputs["jobs/pretrain.py"].stderr
    [line] = [
        row
        for row in outputs["jobs/evaluate.py"].stderr.splitlines()
        if row.startswith("  report_uri")
    ]
    page = Path(line.split()[1]).read_text()
    assert "pump-" in page
    assert page.count('class="timeline"') == 5
    # no classical model can learn this pattern: the interval depends on the last two events
    values = _metrics(page, "MAE (s)")
    assert values["model"] < 0.5 * min(values[name] for name in ("poisson", "marginal", "hawkes"))


def _metrics(page: str, column: str) -> dict[str, float]:
    """A column of the page's table, by the name of the row."""
    [table] = re.findall(r'aria-label="Metrics of the model.*?</table>', page, re.DOTALL)
    place = re.findall(r'<th scope="col">(.*?)</th>', table).index(column)
    metrics: dict[str, float] = {}
    for name, cells in re.findall(r'<th scope="row">(\w+)</th>(.*?)</tr>', table, re.DOTALL):
        values = re.findall(r"<td[^>]*>([^<]*)", cells)
        if values[place].strip():
            metrics[name] = float(values[place].replace(",", ""))
    return metrics
