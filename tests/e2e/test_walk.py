"""A newcomer follows "Your own events" with its sample, and nothing else, to a report."""

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MINUTES = 15


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
    for folder in ("docs", "jobs", "mmtpp"):
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
    # no classical model can learn the sample's pattern: start, alarm, alarm and stop after about
    # 60, 20, 5 and 2 s, so the interval depends on the last two events
    values = _metrics(page, "MAE of times")
    assert values["model"] < 0.5 * min(values[name] for name in ("poisson", "marginal", "hawkes"))


def _metrics(page: str, label: str) -> dict[str, float]:
    """A row of the page's table: values in seconds by the name of the column."""
    [table] = re.findall(r'aria-label="Metrics of the model.*?</table>', page, re.DOTALL)
    [row] = re.findall(rf'role="rowheader">{label}\b(.*?)</tr>', table, re.DOTALL)
    cells = re.findall(r'<td role="cell" data-name="(\w+)"[^>]*>\s*([\d.,]+) s', row)
    return {name: float(value.replace(",", "")) for name, value in cells}
