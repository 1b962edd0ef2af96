"""The configuration as flat ``section.key`` parameters."""

from typing import cast

from mmtpp.config.schema import RunConfig


def flat_settings(config: RunConfig) -> dict[str, object]:
    """``section.key`` -> value for every setting."""
    flat: dict[str, object] = {}

    def walk(tree: dict[str, object], prefix: str) -> None:
        for key, value in tree.items():
            if isinstance(value, dict):
                walk(cast("dict[str, object]", value), f"{prefix}{key}.")
            else:
                flat[prefix + key] = value

    walk(config.model_dump(mode="json"), "")
    return flat
