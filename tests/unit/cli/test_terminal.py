"""Progress on a pseudo-terminal, and plain lines in a log."""

import os
import pty
import subprocess
import sys

import pytest

WORK = """
import logging
from mmtpp.runtime.logs import start_logging
from mmtpp.runtime.progress import ProgressBar

start_logging()
steps = ProgressBar("decode", total=40_000_000, unit="MB", scale=10**6)
for number in range(4):
    steps.advance(10_000_000, "[a note]")
    logging.getLogger("mmtpp.somewhere").warning("careful [bold] s3://%s", "long/" * 40)
steps.close()
"""
ESCAPE = "\x1b["


def _on_terminal(environment: dict[str, str], work: str = WORK, status: int = 0) -> str:
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", work], stderr=terminal, env={**os.environ, **environment}
    )
    os.close(terminal)
    output = b""
    while True:
        try:
            part = os.read(controller, 65536)
        except OSError:  # Linux: the terminal was closed
            break
        output += part
    os.close(controller)
    assert process.wait() == status
    return output.decode()


@pytest.fixture
def terminal(monkeypatch):
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    return {"TERM": "xterm-256color", "COLUMNS": "100"}


def test_a_terminal_has_a_bar_and_colours(terminal):
    shown = _on_terminal(terminal)
    assert "40/40" in shown
    assert "[a note]" in shown
    assert f"{ESCAPE}33m" in shown  # yellow
    assert f"s3://{'long/' * 40}" in shown.replace("\r\n", "\n")  # not wrapped
    assert "decode: 40 MB in" in shown


def test_colours_can_be_disabled(terminal):
    shown = _on_terminal({**terminal, "NO_COLOR": "1"})
    assert f"{ESCAPE}33m" not in shown
    assert "careful [bold]" in shown


def test_an_error_restores_the_cursor(terminal):
    failing = WORK.replace("steps.close()", "raise ValueError('lost')")
    shown = _on_terminal(terminal, failing, 1)
    assert "lost" in shown
    assert shown.rindex(f"{ESCAPE}?25h") > shown.rindex(f"{ESCAPE}?25l")


def test_a_log_has_only_lines():
    process = subprocess.run(
        [sys.executable, "-c", WORK], capture_output=True, text=True, check=True
    )
    assert not process.stdout
    assert ESCAPE not in process.stderr
    lines = process.stderr.splitlines()
    assert len(lines) == 6  # one at the start, four warnings, one at the end
    assert lines[0].endswith("INFO mmtpp.runtime.progress: decode: 40 MB")
