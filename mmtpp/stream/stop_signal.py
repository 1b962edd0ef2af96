"""SIGTERM, as ``ray job stop`` sends it, and Ctrl-C end the job after a commit."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stop_event() -> Iterator[threading.Event]:
    """While the job runs, let the first signal set an event; a second one ends it at once.

    Yields:
        The event. Outside the main thread, which receives no signals, nothing sets it.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def on_signal(number: int, _frame: object) -> None:
        logger.warning(
            "%s received: the job ends after a commit; a second signal ends it at once",
            signal.Signals(number).name,
        )
        stop.set()
        restore()

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    for number in _SIGNALS:
        signal.signal(number, on_signal)
    try:
        yield stop
    finally:
        restore()
