"""The configuration as a flat mapping with keys ``section.key``."""

from typing import cast

from mmtpp.config.schema import RunConfig


def flat_settings(config: RunConfig) -> dict[str, object]:
    """The JSON value of every setting by its path ``section.key``."""
    flat: dict[str, object] = {}

    def walk(tree: dict[str, object], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(cast("dict[str, object]", value), f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(config.model_dump(mode="json"), "")
    return flat
