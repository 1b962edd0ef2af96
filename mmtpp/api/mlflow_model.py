"""The model that MLflow loads for a logged forecaster (``track.logged_model``).

Input: one row per sequence, with the columns ``sequence_id``, ``times`` and ``types``, and
optionally ``texts`` and ``images``. Output: one row per sequence, with the columns of
``jobs/predict.py`` except ``newest_event_rejected``, which needs the source files.
"""

from typing import Any

import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mmtpp.api.forecaster import Forecaster


class ForecasterModel(PythonModel):
    """A ``Forecaster`` with the interface of MLflow's Python models."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the model from the path in the model's configuration."""
        config: Any = context.model_config
        self._forecaster = Forecaster.from_pretrained(config["path"], base=config["base"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Forecast the next event of each sequence."""
        levels = self._forecaster.config.prediction.quantiles
        rows = []
        for row in model_input.to_dict("records"):
            sequence = self._forecaster.sequence(
                row["times"],
                row["types"],
                texts=_as_list(row.get("texts")),
                images=_as_list(row.get("images")),
                sequence_id=str(row["sequence_id"]),
            )
            rows.append(self._forecaster.forecast(sequence).as_row(levels))
        return pd.DataFrame(rows)


def _as_list(values: Any) -> list[str]:
    """Values of a cell; empty for None and NaN, pandas' value of an absent column."""
    return [] if values is None or isinstance(values, float) else list(values)
