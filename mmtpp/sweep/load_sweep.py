"""Sweeps from their files, read and checked before anything starts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmtpp.config.load import config_from_tree, parse_assignments, read_toml, section_from_tree
from mmtpp.sweep.checks import check
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import Choice, Domain, SweepSettings, Tie


def load_sweep(path: Path, assignments: Sequence[str]) -> Sweep:
    """Read a sweep: a configuration file with ``[sweep]``, ``[space]`` and perhaps ``[tied]``.

    In ``[space]`` a configuration path has a list of values, or a range, as in
    ``"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}``; in ``[tied]`` a path
    follows one of those, as in ``"lora.alpha" = {to = "lora.rank", times = 4}``.

    Args:
        path: of the file.
        assignments: ``section.key=value``, of these tables too.

    Raises:
        ConfigError: unreadable, or some trial's configuration would be wrong.
    """
    tree = read_toml(path)
    faults: list[str] = []
    parse_assignments(tree, assignments, faults)
    settings = section_from_tree(SweepSettings, tree.pop("sweep", {}), faults, prefix="sweep.")
    space: dict[str, Choice] = {}
    for key, choice in _leaves(tree.pop("space", {}), ""):
        read = _choice(key, choice, faults)
        if read is not None:
            space[key] = read
    tied: dict[str, Tie] = {}
    for key, written in _leaves(tree.pop("tied", {}), ""):
        tie = section_from_tree(Tie, written, faults, prefix=f"tied.{key}.")
        if tie is not None:
            tied[key] = tie
            if tie.to not in space or key in space:
                faults.append(f"tied.{key}: ties a setting that is not searched to one that is")
    if not space and not faults:
        faults.append("space: nothing to search")
    config = config_from_tree(tree, faults)
    assert settings is not None  # its faults were raised
    sweep = Sweep(settings, config, space, tied)
    check(sweep)
    return sweep


def _leaves(tree: object, prefix: str) -> Iterator[tuple[str, object]]:
    """``a.b = [1]`` and ``"a.b" = [1]`` are the same."""
    if isinstance(tree, dict) and not {"low", "high", "to"} & set(tree):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _choice(key: str, choice: object, faults: list[str]) -> Choice | None:
    if isinstance(choice, dict):
        return section_from_tree(Domain, choice, faults, prefix=f"space.{key}.")
    if not isinstance(choice, list) or not choice:
        faults.append(
            f"space.{key} = {choice!r}: a list of values, [1, 2], or {{low = 1, high = 9}}"
        )
        return None
    if any(choice.count(value) > 1 for value in choice):
        faults.append(f"space.{key} = {choice!r}: a value comes twice")
        return None
    return choice
