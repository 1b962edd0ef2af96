"""Metrics of an evaluation that were renamed. The error for an old name suggests the new one."""

from mmtpp.evaluate.scores.position_ranges import AT

RENAMED: dict[str, str] = {
    "horizon/cut_futures": "horizon/truncated_futures",
    "interval_code_nll_nats_per_event": "likelihood/interval_code_nll_nats_per_event",
    "interval_code_nll_standard_error": "likelihood/interval_code_nll_standard_error",
    "interval_nll_nats_per_event": "likelihood/interval_code_nll_nats_per_event",
    "interval_nll_standard_error": "likelihood/interval_code_nll_standard_error",
    "mean_interval_s": "likelihood/mean_interval_s",
    "qa/finetuned_items": "qa/finetuned_recall_of_names",
    "qa/items": "qa/recall_of_names",
    "qa/published_items": "qa/published_recall_of_names",
    "text_nll_nats_per_event": "likelihood/text_nll_nats_per_event",
    "type_accuracy": "likelihood/type_given_interval_accuracy",
    "type_accuracy_last": "likelihood/type_accuracy_last",
    "type_accuracy_most_frequent": "likelihood/type_accuracy_most_frequent",
    "type_accuracy_standard_error": "likelihood/type_given_interval_accuracy_standard_error",
    "type_nll_nats_per_event": "likelihood/type_given_interval_nll_nats_per_event",
}
"""New name of every renamed metric, by its old name."""
RENAMED_RANGES: dict[str, str] = {
    "1-50": "1-49",
    "50-200": "50-199",
    "200-500": "200-499",
    "over_500": "500_up",
}
"""New name of every renamed range of positions, by its old name."""


def new_name(metric: str) -> str | None:
    """New name of a metric that was renamed; None for any other name."""
    name, at, position_range = metric.partition(AT)
    renamed = RENAMED.get(name, name) + at + RENAMED_RANGES.get(position_range, position_range)
    return renamed if renamed != metric else None
