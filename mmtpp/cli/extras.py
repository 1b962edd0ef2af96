"""Extras: the optional packages of a command, installed by ``pip install 'mmtpp[EXTRA]'``."""

from collections.abc import Sequence
from importlib.util import find_spec

from mmtpp.core.errors import ConfigError

# optional packages by extra, as in pyproject.toml
EXTRAS = {
    "train": ("deepspeed", "ninja"),
    "track": ("mlflow",),
    "gguf": ("gguf",),
    "tune": ("optuna", "tomli_w"),
    "aws": ("s3fs", "obstore", "botocore", "boto3"),
    "gcp": ("gcsfs",),
    "azure": ("adlfs",),
    "kafka": ("confluent_kafka",),
}


def require_extras(extras: Sequence[str], *, command: str) -> None:
    """Check that the packages of the given extras are installed.

    Args:
        extras: Keys of ``EXTRAS``.
        command: Name of the command that needs the packages.

    Raises:
        ConfigError: A package is missing; the message names the extras to install.
    """
    missing = {
        extra: absent
        for extra in extras
        if (absent := [name for name in EXTRAS[extra] if find_spec(name) is None])
    }
    if missing:
        packages = ", ".join(name for absent in missing.values() for name in absent)
        raise ConfigError(
            f"mmtpp {command} needs packages that are not installed: {packages}",
            cause="mmtpp was installed without the optional packages of this command",
            setting=f"pip install 'mmtpp[{','.join(missing)}]'",
        )
