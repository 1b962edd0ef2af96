"""Log lines of drivers and workers, on standard error."""

import logging
import sys

import rich
from rich.text import Text


def start_logging(prefix: str = "") -> None:
    """Log to standard error, one line per message: time, level, module, message.

    On a terminal, warnings and errors are coloured (unless NO_COLOR is set), and the lines stay
    above the bars of ``runtime.progress``.

    Args:
        prefix: Text before the name of the module.
    """
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if sys.stderr.isatty():
        rich.reconfigure(stderr=True)
        handler = _TerminalHandler()
    logging.basicConfig(
        level=logging.INFO,
        handlers=[handler],
        format=f"%(asctime)s %(levelname)s {prefix}%(name)s: %(message)s",
        datefmt="%H:%M:%S",
    )
    for name in ("httpx", "urllib3", "botocore", "alembic", "matplotlib"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _TerminalHandler(logging.Handler):
    """Prints to rich's console without breaking long lines, so that URIs can be copied."""

    def emit(self, record: logging.LogRecord) -> None:
        color = "red" if record.levelno >= logging.ERROR else "yellow"
        style = color if record.levelno >= logging.WARNING else ""
        rich.get_console().print(Text(self.format(record), style), soft_wrap=True)
