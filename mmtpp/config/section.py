"""The base of all sections of the configuration, and the types of their settings."""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from mmtpp.core.split import parse_instant

Fraction = Annotated[float, Field(ge=0, lt=1)]


def _no_secrets(uri: str) -> str:
    scheme, _, path = uri.partition("://")
    user, at, _ = path.partition("/")[0].rpartition("@")
    # CONTAINER@ACCOUNT.dfs.core.windows.net of Azure holds no user
    if at and (scheme not in ("abfs", "abfss") or ":" in user):
        raise ValueError(
            "a URI must not carry a user or password; set credentials in the standard "
            "environment variables (AWS_*, AZURE_STORAGE_*, MLFLOW_TRACKING_USERNAME, "
            "MLFLOW_TRACKING_PASSWORD)"
        )
    return uri


def _absolute(uri: str) -> str:
    # every worker has another current folder
    return uri if not uri or "://" in uri else str(Path(uri).expanduser().absolute())


Uri = Annotated[str, AfterValidator(_no_secrets), AfterValidator(_absolute)]


def _absolute_folder(address: str) -> str:
    return address if address.startswith("models:/") else _absolute(address)


ModelAddress = Annotated[str, AfterValidator(_no_secrets), AfterValidator(_absolute_folder)]
"""The folder of a model, or its address in MLflow's model registry, ``models:/NAME@ALIAS``."""


def _as_text(value: object) -> object:
    """The text of a number or a date of TOML; other values unchanged."""
    if isinstance(value, date | datetime):
        return value.isoformat()
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(value) if is_number else value


def _is_instant(text: str) -> str:
    try:
        parse_instant(text, seconds_per_unit=1.0)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is neither a number nor an ISO date") from None
    return text


Instant = Annotated[str, BeforeValidator(_as_text), AfterValidator(_is_instant)]
"""A number in the source's unit, or an ISO date; empty for no instant."""


class Section(BaseModel):
    """Base of all sections: frozen, strict, without unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
