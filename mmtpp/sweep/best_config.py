"""Configuration files of the best trial of a sweep, as TOML."""

import tomli_w

from mmtpp.config.load import with_values
from mmtpp.config.schema import RunConfig
from mmtpp.sweep.space import Sweep, Values

BEST_FILE = "best.toml"  # configuration of the first job


def best_files(sweep: Sweep, best: Values) -> dict[str, bytes]:
    """Build the configuration files of the best trial, by name; jobs run them unchanged.

    ``best.toml`` is for the first job, ``best-finetune.toml`` for a ``finetune`` that follows.

    Raises:
        ConfigError: The best settings are not a valid configuration.
    """
    config = with_values(sweep.config, sweep.trial_settings(best))
    first, *later = sweep.settings.jobs
    files = {BEST_FILE: as_toml(config, f"jobs/{first}.py --config {BEST_FILE}")}
    if "finetune" in later:
        finetune_config = with_values(config, sweep.settings.finetune)
        trained = "model.adapter" if config.lora.rank else "model.path"
        command = f"jobs/finetune.py --config best-finetune.toml --set {trained}=MODEL_OF_BEST_TOML"
        files["best-finetune.toml"] = as_toml(finetune_config, command)
    return {name: text.encode() for name, text in files.items()}


def as_toml(config: RunConfig, command: str) -> str:
    """Format a configuration file; its first line names the command that uses it.

    Args:
        config: Configuration to write.
        command: Command after ``python``.
    """
    return f"# python {command}\n\n" + tomli_w.dumps(
        config.model_dump(mode="json", exclude_none=True)
    )
