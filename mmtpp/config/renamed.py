"""Settings that were renamed. An error for an old name suggests the new one."""

from collections.abc import Mapping
from typing import Any, cast

RENAMED: dict[str, str] = {}
"""New path of every renamed setting or section, by its old path ``section.key``."""


def renamed_settings(path: str, value: object) -> dict[str, str]:
    """Find the renamed settings in an unknown setting or section.

    Args:
        path: Path of the unknown setting or section.
        value: Value of the setting, or the tree of the section.

    Returns:
        New path by old path. A section that does not exist any more contributes each of its
        renamed settings.
    """
    if path in RENAMED:
        return {path: RENAMED[path]}
    if not isinstance(value, Mapping):
        return {}
    renamed: dict[str, str] = {}
    for key, child in cast("Mapping[str, Any]", value).items():
        renamed |= renamed_settings(f"{path}.{key}", child)
    return renamed
