"""Imports of large libraries, without Python's cyclic garbage collector."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def fast_imports() -> Iterator[None]:
    """Pause the collector while modules are imported.

    Modules make a million objects that stay, and the collector would go through them again and
    again: a quarter of the time of an import (torch, transformers and DeepSpeed, 2026-11-30). The
    objects that exist at the end are never looked at again, which makes later collections faster.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
