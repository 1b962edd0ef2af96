"""What all sections of the configuration share."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0, lt=1)]


def _no_secrets(uri: str) -> str:
    authority = uri.partition("://")[2].partition("/")[0]
    if "@" in authority:
        raise ValueError(
            "a URI must not carry a user or password; give credentials in the standard "
            "environment variables (AWS_*, MLFLOW_TRACKING_USERNAME, MLFLOW_TRACKING_PASSWORD)"
        )
    return uri


def _absolute(uri: str) -> str:
    # workers run in folders of their own
    return uri if not uri or "://" in uri else str(Path(uri).expanduser().absolute())


Uri = Annotated[str, AfterValidator(_no_secrets), AfterValidator(_absolute)]


class Section(BaseModel):
    """Base of all sections: frozen, strict, closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        validate_default=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )
