"""A local stack for a benchmark, and the folder of the real data."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cluster.local import down, up
from cluster.services import Stack


@contextmanager
def own_stack(home: Path | None = None) -> Iterator[Stack]:
    """Start a local stack for this process and stop it at the end or on SIGTERM.

    Args:
        home: Folder of a stack whose data is kept; None to delete the data with the stack.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as scratch:
        folder = home or Path(scratch)
        stack = up(folder)
        try:
            os.environ.update(stack.environment())
            yield stack
        finally:
            ray.shutdown()  # before the head stops, so that an error can still be reported
            down(folder)


def danmaku_folder() -> Path:
    """Folder of the real danmaku; exits with status 2 if it does not exist."""
    folder = Path(os.environ.get("MMTPP_TEST_DATA", "")).absolute() / "danmaku_bilibili_xml"
    if not folder.is_dir():
        print("MMTPP_TEST_DATA does not name a folder with danmaku_bilibili_xml", file=sys.stderr)
        raise SystemExit(2)
    return folder
