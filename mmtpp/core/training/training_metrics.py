"""The names of the metrics that a training reports and that other packages read, defined once."""

VALIDATION = "validation"
"""Family of the metrics of a validation: the first word of their names."""
VALIDATION_LOSS = "validation/loss_per_token"
VALIDATION_WEIGHTED_LOSS = "validation/weighted_loss_per_token"
"""Mean loss with the weights of the labels, by which the best model is chosen."""
VALIDATION_EVENTS = "validation/events"
VALIDATION_INTERVAL_NLL = "validation/interval_code_nll_nats_per_event"
VALIDATION_EVENT_NLL = "validation/nll_nats_per_event"
"""NLL of whole events; stage 1 only, because no answer of stage 2 is a whole event."""
VALIDATION_TYPE_ACCURACY = "validation/type_accuracy"
VALIDATION_TIME_NLL = "validation/time_nll_nats_per_event"
"""Density of the interval, and for the two names below the type given the interval, and both:
metrics of the temporal expert."""
VALIDATION_JOINT_TYPE_NLL = "validation/joint_type_nll_nats_per_event"
VALIDATION_JOINT_NLL = "validation/joint_nll_nats_per_event"
VALIDATION_MARGINAL_NLL = "validation/marginal_joint_nll_nats_per_event"
"""The same of the marginal baseline, which an expert must beat; once, at the end of a training."""
LANGUAGE_MODEL_VALIDATION = (
    VALIDATION_LOSS,
    "validation/time_loss_per_token",
    "validation/type_loss_per_token",
    "validation/text_loss_per_token",
    "validation/control_loss_per_token",
    VALIDATION_WEIGHTED_LOSS,
    VALIDATION_EVENTS,
    VALIDATION_INTERVAL_NLL,
    VALIDATION_EVENT_NLL,
    VALIDATION_TYPE_ACCURACY,
)
"""All metrics of a validation of a language model."""
EXPERT_VALIDATION = (
    VALIDATION_TIME_NLL,
    VALIDATION_JOINT_TYPE_NLL,
    VALIDATION_JOINT_NLL,
    VALIDATION_MARGINAL_NLL,
)
"""All metrics of a validation of a temporal expert."""

COMPRESSED_FRACTION = "data/compressed_fraction"
TOKENS_PER_EVENT = "data/tokens_per_event"
EVENTS_PER_CONTEXT = "data/events_per_context"
TRAINED_PARAMETERS = "model/trained_parameters"
