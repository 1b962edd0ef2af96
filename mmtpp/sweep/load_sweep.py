"""Load a sweep from its file; all errors are found before anything starts."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from mmtpp.config.load import config_from_tree, parse_assignments, read_toml, section_from_tree
from mmtpp.sweep.checks import check_sweep
from mmtpp.sweep.space import Sweep
from mmtpp.sweep.sweep_settings import Choice, Domain, SweepSettings, Tie


def load_sweep(path: Path, assignments: Sequence[str]) -> Sweep:
    """Read and check a sweep: a configuration file with ``[sweep]``, ``[space]`` and ``[tied]``.

    ``[space]`` gives configuration paths a list of values, or a range, as in
    ``"training.learning_rate" = {low = 1e-4, high = 1e-2, log = true}``. ``[tied]``, which may be
    missing, makes paths follow a searched one, as in
    ``"lora.alpha" = {to = "lora.rank", times = 4}``.

    Args:
        path: Path of the file.
        assignments: Settings as ``section.key=value``, also of these three tables.

    Raises:
        ConfigError: The file cannot be read, or the configuration of some trial is not valid.
    """
    tree = read_toml(path)
    faults: list[str] = []
    parse_assignments(tree, assignments, faults)
    settings = section_from_tree(SweepSettings, tree.pop("sweep", {}), faults, prefix="sweep.")
    space: dict[str, Choice] = {}
    for key, choice in _leaves(tree.pop("space", {}), ""):
        parsed = _parse_choice(key, choice, faults)
        if parsed is not None:
            space[key] = parsed
    tied: dict[str, Tie] = {}
    for key, tie_tree in _leaves(tree.pop("tied", {}), ""):
        tie = section_from_tree(Tie, tie_tree, faults, prefix=f"tied.{key}.")
        if tie is not None:
            tied[key] = tie
            if tie.to not in space or key in space:
                faults.append(f"tied.{key}: ties a setting that is not searched to one that is")
    if not space and not faults:
        faults.append("space: nothing to search")
    config = config_from_tree(tree, faults)
    assert settings is not None  # config_from_tree has raised its faults
    sweep = Sweep(settings, config, space, tied)
    check_sweep(sweep)
    return sweep


def _leaves(tree: object, prefix: str) -> Iterator[tuple[str, object]]:
    """Paths and values of a table; ``a.b = [1]`` and ``"a.b" = [1]`` give the same path."""
    if isinstance(tree, dict) and not {"low", "high", "to"} & set(tree):
        for key, value in tree.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, tree


def _parse_choice(key: str, choice: object, faults: list[str]) -> Choice | None:
    if isinstance(choice, dict):
        return section_from_tree(Domain, choice, faults, prefix=f"space.{key}.")
    if not isinstance(choice, list) or not choice:
        faults.append(
            f"space.{key} = {choice!r}: must be a list, [1, 2], or a range, {{low = 1, high = 9}}"
        )
        return None
    if any(choice.count(value) > 1 for value in choice):
        faults.append(f"space.{key} = {choice!r}: a value is listed twice")
        return None
    return choice
