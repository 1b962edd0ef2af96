"""The engine of a training with one rank on a CPU, in the process of a benchmark."""

from mmtpp.config.schema import RunConfig
from mmtpp.model.event_model import EventModel
from mmtpp.train.engine.deepspeed_engine import DeepSpeedEngine
from mmtpp.train.engine.zero import build_deepspeed_config


def single_rank_engine(
    config: RunConfig, model: EventModel, *, precision: str = "float32"
) -> DeepSpeedEngine:
    """Put a model into an engine.

    Args:
        config: Settings of the training, of ZeRO and of the optimiser.
        model: Model to train.
        precision: Number format of the model, ``float32`` or ``bfloat16``.
    """
    training = config.training
    return DeepSpeedEngine(
        model.train(),
        build_deepspeed_config(
            training, config.zero, config.optimizer, num_ranks=1, precision=precision, on_gpu=False
        ),
        training=training,
        optimizer_settings=config.optimizer,
        optimizer_precision=config.optimizer_precision,
        rank=0,
        num_ranks=1,
    )
