"""Checks that a neural point process does not use later events.

The likelihood of an event may depend only on earlier events. The check appends several different
events to a sequence: the likelihoods of the earlier events must not change.
"""

from typing import Any

from benchmarks.quality.easytpp import model_settings

MAX_EFFECT = 1e-4  # nats; rounding of float32
NUM_TYPES, NUM_EVENTS = 3, 12


def effect_of_later_events(model: str, *, seed: int = 0) -> float:
    """Measure how much a later event changes the log-likelihood of earlier events.

    Args:
        model: Name of an EasyTPP model; the check uses a network with random parameters.
        seed: Seed of the parameters and of the sequence.

    Returns:
        The largest change of an earlier event's log-likelihood over three later events, in nats.
    """
    import torch
    from easy_tpp.config_factory import ModelConfig  # pyright: ignore[reportMissingImports]
    from easy_tpp.model import BaseModel  # pyright: ignore[reportMissingImports]

    torch.manual_seed(seed)
    types = {
        "num_event_types": NUM_TYPES,
        "num_event_types_pad": NUM_TYPES + 1,
        "event_pad_index": NUM_TYPES,
    }
    settings = ModelConfig(**model_settings(), **types, model_id=model)
    # EasyTPP's runner sets these two values from the training data
    settings.set("mean_log_inter_time", 0.0)
    settings.set("std_log_inter_time", 1.0)
    network = BaseModel.generate_model_from_config(settings).eval()
    waits = torch.rand(NUM_EVENTS).exponential_()
    waits[0] = 0.0
    kinds = torch.randint(NUM_TYPES, (NUM_EVENTS,))
    alone = _log_likelihoods(network, waits, kinds)
    changes = []
    for wait, kind in ((0.1, 0), (1.0, 1), (5.0, 2)):
        longer = _log_likelihoods(
            network,
            torch.cat([waits, torch.tensor([wait])]),
            torch.cat([kinds, torch.tensor([kind])]),
        )
        changes.append(float((longer[:-1] - alone).abs().max()))
    return max(changes)


def _log_likelihoods(network: Any, waits: Any, kinds: Any) -> Any:
    """(E - 1,) log-likelihoods of the events of one sequence after the first.

    They are the terms of the network's loss, which is minus their sum.
    """
    import torch
    from torch.overrides import TorchFunctionMode

    class RecordedSums(TorchFunctionMode):
        """Records the tensors that are summed."""

        def __init__(self) -> None:
            super().__init__()
            self.terms: list[Any] = []

        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is torch.Tensor.sum and len(args) == 1 and not kwargs:
                self.terms.append(args[0])
            return func(*args, **(kwargs or {}))

    size = len(waits)
    with RecordedSums() as sums:
        loss, _ = network.loglike_loss(
            time_seqs=waits.cumsum(0)[None],
            time_delta_seqs=waits[None].clone(),
            type_seqs=kinds[None],
            seq_non_pad_mask=torch.ones(1, size, dtype=torch.bool),
            attention_mask=torch.ones(1, size, size).triu(1).bool(),
        )
    per_event = [terms for terms in sums.terms if terms.shape == (1, size - 1)]
    log_likelihoods = [terms for terms in per_event if terms.is_floating_point()][-1]
    assert torch.allclose(log_likelihoods.sum(), -loss), (
        "the loss is not the sum of the events' terms"
    )
    return log_likelihoods[0].detach()
