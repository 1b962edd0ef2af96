"""The model that MLflow loads for a logged forecaster (``track.logged_model``).

One row a sequence in: ``sequence_id``, ``times``, ``types``, and ``texts`` and ``images`` where
there are any. One row a sequence out: the columns of ``jobs/predict.py``, but for
``newest_event_rejected``, which needs the files.
"""

from typing import Any

import pandas as pd
from mlflow.pyfunc.model import PythonModel, PythonModelContext

from mmtpp.api.forecaster import Forecaster


class ForecasterModel(PythonModel):
    """A ``Forecaster`` behind MLflow's interface."""

    def load_context(self, context: PythonModelContext) -> None:
        """Load the weights from where they lie."""
        config: Any = context.model_config
        self._forecaster = Forecaster.from_pretrained(config["path"], base=config["base"])

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Forecast the event after the last of each sequence."""
        levels = self._forecaster.config.prediction.quantiles
        rows = []
        for row in model_input.to_dict("records"):
            sequence = self._forecaster.sequence(
                row["times"],
                row["types"],
                texts=_given(row.get("texts")),
                images=_given(row.get("images")),
                sequence_id=str(row["sequence_id"]),
            )
            rows.append(self._forecaster.forecast(sequence).record(levels))
        return pd.DataFrame(rows)


def _given(values: Any) -> list[str]:
    """An absent column is NaN in pandas."""
    return [] if values is None or isinstance(values, float) else list(values)
