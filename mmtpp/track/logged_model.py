"""A forecaster as an MLflow model, for ``mlflow.pyfunc.load_model(...).predict(frame)``."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
from mlflow.models import ModelSignature
from mlflow.pyfunc import save_model
from mlflow.types import ColSpec, DataType, ParamSchema, Schema
from mlflow.types.schema import AnyType, Array

INPUTS = Schema(
    [
        ColSpec(DataType.string, "sequence_id"),
        ColSpec(Array(DataType.double), "times"),
        ColSpec(AnyType(), "types"),  # names or codes
        ColSpec(Array(DataType.string), "texts", required=False),
        ColSpec(Array(DataType.string), "images", required=False),
    ]
)


# MLflow runs this code when it loads the model; the environment must have mmtpp
_CODE = """from mlflow.models import set_model

from mmtpp.api.mlflow_model import ForecasterModel

set_model(ForecasterModel())
"""


def save_forecaster(folder: Path, *, path: str, base: str, known_type: str | int) -> None:
    """Write an MLflow model that loads a forecaster from its URI.

    The MLflow model has code and the URI of the weights. Nothing is pickled and no weights are
    copied.

    Args:
        folder: New local folder.
        path: URI of the model or adapter.
        base: URI of the model that an adapter adapts; empty for none.
        known_type: Type that the model knows, for the example of an input.
    """
    example = {"sequence_id": "example", "times": [0.0, 1.0, 3.0], "types": [known_type] * 3}
    with TemporaryDirectory() as scratch:
        script = Path(scratch) / "forecaster.py"
        script.write_text(_CODE)
        save_model(
            str(folder),
            python_model=str(script),
            model_config={"path": path, "base": base},
            signature=ModelSignature(inputs=INPUTS, params=ParamSchema([])),
            input_example=pd.DataFrame([example]),
            pip_requirements=["mmtpp"],
            metadata={"mmtpp.model_uri": path, "mmtpp.base_uri": base},
        )
