"""The metrics of an expert's training, and the warning that they may give."""

import logging

from mmtpp.core.training.training_metrics import (
    TRAINED_PARAMETERS,
    VALIDATION_JOINT_NLL,
    VALIDATION_JOINT_TYPE_NLL,
    VALIDATION_MARGINAL_NLL,
    VALIDATION_TIME_NLL,
)
from mmtpp.expert.expert_folder import Expert
from mmtpp.expert.fit import ExpertFit
from mmtpp.expert.network_losses import NetworkLosses

logger = logging.getLogger(__name__)


def validation_metrics(losses: NetworkLosses) -> dict[str, float]:
    """Metrics of one validation, from its losses."""
    return {
        VALIDATION_TIME_NLL: losses.interval_nll,
        VALIDATION_JOINT_TYPE_NLL: losses.type_nll,
        VALIDATION_JOINT_NLL: losses.nll,
    }


def final_metrics(fit: ExpertFit, expert: Expert) -> dict[str, float]:
    """Metrics of the finished expert: the mean of all networks' distributions, and the marginal."""
    num_parameters = sum(
        parameter.numel() for network in expert.networks for parameter in network.parameters()
    )
    metrics = {TRAINED_PARAMETERS: float(num_parameters)}
    losses, marginal = fit.validation_losses(expert.networks), fit.marginal_losses()
    if losses is not None and marginal is not None:
        metrics |= {**validation_metrics(losses), VALIDATION_MARGINAL_NLL: marginal.nll}
    return metrics


def warn_below_marginal(metrics: dict[str, float], *, where: str) -> None:
    """Warn that the expert forecasts the validation events no better than the marginal does.

    Args:
        metrics: Result of ``final_metrics``.
        where: Location of the events.
    """
    if VALIDATION_MARGINAL_NLL not in metrics:
        return
    of_expert, of_marginal = metrics[VALIDATION_JOINT_NLL], metrics[VALIDATION_MARGINAL_NLL]
    if of_expert >= of_marginal:
        logger.warning(
            "the expert forecasts the validation events of %s no better than the training "
            "distribution without any history: %.3f and %.3f nats per event; the training events "
            "are too few or do not depend on their past, so add training sequences, or use the "
            "marginal baseline",
            where,
            of_expert,
            of_marginal,
        )
