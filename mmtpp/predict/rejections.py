"""Mark forecasts of sequences that lost events when they were read."""

import logging

import pyarrow as pa

from mmtpp.core.rejection_summary import (
    RejectionSummary,
    newest_rejection_cause,
    rejected_by_sequence,
)
from mmtpp.data.store.contents import iterate_rejected_records
from mmtpp.storage.manifest import Manifest

logger = logging.getLogger(__name__)

COLUMN = "newest_event_rejected"


class Rejections:
    """Marks the forecasts of sequences whose newest event was rejected.

    Args:
        store_uri: Path of the store.
        manifest: Manifest of the store.
    """

    def __init__(self, store_uri: str, manifest: Manifest) -> None:
        self._store_uri = store_uri
        self._rejected = list(iterate_rejected_records(store_uri, manifest))
        self._of_sequence = rejected_by_sequence(self._rejected)
        self._of_sequence.pop("", None)
        self._last_times: dict[str, float] = {}

    def mark(self, forecasts: pa.Table) -> pa.Table:
        """Add the column ``COLUMN``: the cause of the rejection, null where the event was kept.

        Args:
            forecasts: Table with the columns ``sequence_id`` and ``last_time``.
        """
        causes: list[str | None] = []
        for row in forecasts.select(["sequence_id", "last_time"]).to_pylist():
            name, time = row["sequence_id"], row["last_time"]
            records = self._of_sequence.get(name)
            if records is None:
                causes.append(None)
                continue
            self._last_times[name] = time
            causes.append(newest_rejection_cause(records, time) or None)
        return forecasts.append_column(COLUMN, pa.array(causes, pa.string()))

    def losses(self) -> RejectionSummary:
        """Find sequences without a forecast or without their newest event; logs their names."""
        losses = RejectionSummary.from_records(self._rejected, self._last_times)
        for sentence in losses.sentences():
            logger.warning("%s: %s", self._store_uri, sentence)
        return losses
