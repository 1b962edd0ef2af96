"""Settings that were renamed. The error for an old name suggests the new one."""

RENAMED: dict[str, str] = {}
"""New path of every renamed setting or section, by its old path ``section.key``."""


def holds_renamed(section: str) -> bool:
    """Whether a section that no longer exists had settings that were renamed."""
    return any(path.startswith(f"{section}.") for path in RENAMED)
