"""Data as plain text of a Markdown page."""

import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|<>&~])")


def as_plain(text: str) -> str:
    """Text in which nothing is markup: no link, no HTML, no end of a table's cell or line."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
