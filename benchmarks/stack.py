"""Where benchmarks run: a local stack of their own, and the real data."""

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray

from cluster.local import Stack, down, up


@contextmanager
def own_stack(home: Path | None = None) -> Iterator[Stack]:
    """A local stack whose environment is this process's, stopped at the end or on SIGTERM.

    Args:
        home: of a stack whose data stay; without it they go with the stack.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory() as scratch:
        place = home or Path(scratch)
        stack = up(place)
        try:
            os.environ.update(stack.environment())
            yield stack
        finally:
            ray.shutdown()  # or an error, reported to a head that is gone, would end us unheard
            down(place)


def danmaku_folder() -> Path:
    """The real danmaku; ends the program with status 2 where they are not."""
    folder = Path(os.environ.get("MMTPP_TEST_DATA", "")).absolute() / "danmaku_bilibili_xml"
    if not folder.is_dir():
        print("MMTPP_TEST_DATA does not name a folder with danmaku_bilibili_xml", file=sys.stderr)
        raise SystemExit(2)
    return folder
