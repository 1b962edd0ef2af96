"""Data in Markdown pages: escaping of markup."""

import re

_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|<>&~])")


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, on one line and in one cell of a table."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
