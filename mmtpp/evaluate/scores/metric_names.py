"""The names of metrics of an evaluation, each defined once.

A metric has the same name in ``metrics.json``, in the result of the job and in MLflow. The page of
this package explains each of them under its name.
"""

from mmtpp.core.training.loss_sums import names_per_token

# likelihoods of held-out events, given the true events before them: all begin with ``likelihood/``
LOSS_PREFIX = "likelihood"
WINDOW_NLL = "likelihood/nll_nats_per_event"
CONTENT_NLL = "likelihood/content_nll_nats_per_event"
PERPLEXITY = "likelihood/perplexity_per_token"
EVENT_INTERVAL_NLL = "likelihood/interval_code_nll_nats_per_event"
EVENT_INTERVAL_NLL_ERROR = "likelihood/interval_code_nll_standard_error"
EVENT_TYPE_NLL = "likelihood/type_given_interval_nll_nats_per_event"
EVENT_TYPE_ACCURACY = "likelihood/type_given_interval_accuracy"
EVENT_TYPE_ACCURACY_ERROR = "likelihood/type_given_interval_accuracy_standard_error"
EVENT_TYPE_ACCURACY_MOST_FREQUENT = "likelihood/type_accuracy_most_frequent"
EVENT_TYPE_ACCURACY_LAST = "likelihood/type_accuracy_last"
EVENT_TEXT_NLL = "likelihood/text_nll_nats_per_event"
EVENT_MEAN_INTERVAL = "likelihood/mean_interval_s"
LIKELIHOODS = (
    *names_per_token(LOSS_PREFIX),
    WINDOW_NLL,
    CONTENT_NLL,
    PERPLEXITY,
    EVENT_INTERVAL_NLL,
    EVENT_TYPE_NLL,
    EVENT_TYPE_ACCURACY,
    EVENT_TEXT_NLL,
)
"""Metrics of likelihoods by which models can be compared."""

# forecasts of the next event that other modules name; ``metric_table`` has all of them
TIME_RMSE = "time/rmse_s"
TIME_NLL = "time/nll_nats_per_event"
TYPE_ACCURACY = "type/accuracy"
TYPE_NLL = "type/nll_nats_per_event"
TYPE_MACRO_F1 = "type/macro_f1"
JOINT_NLL = "joint/nll_nats_per_event"

# sampled futures
HORIZON_OTD = "horizon/otd_s"
HORIZON_COUNT_ERROR = "horizon/count_error"
HORIZON_TRUE_EVENTS = "horizon/true_events"
HORIZON_T_MAP = "horizon/t_map"
HORIZON_T_MAP_ALL_TYPES = "horizon/t_map_all_types"
HORIZON_TRUNCATED_FUTURES = "horizon/truncated_futures"

# answers to questions in words; ``answer_metric`` completes the names
ANSWER_NLL = "nll_nats_per_token"
ANSWER_EXACT_MATCH = "exact_match"
ANSWER_PARSED = "parsed"
ANSWER_NUMBER_ACCURACY = "accuracy_of_numbers"
ANSWER_ABSOLUTE_ERROR = "mean_absolute_error"
ANSWER_SQUARED_ERROR = "mean_squared_error"
ANSWER_NAMES = "recall_of_names"
PUBLISHED_ACCURACY = "published_accuracy"
PUBLISHED_RMSE = "published_rmse"
PUBLISHED_NAMES = "published_recall_of_names"
FINETUNED_ACCURACY = "finetuned_accuracy"
FINETUNED_RMSE = "finetuned_rmse"
FINETUNED_NAMES = "finetuned_recall_of_names"


def answer_metric(name: str, file: str | None = None) -> str:
    """Full name of a metric of answers, over all questions or over those of one file."""
    return f"qa/{name}" if file is None else f"qa/{file}/{name}"
