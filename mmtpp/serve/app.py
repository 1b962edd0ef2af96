"""The Ray Serve application: ``serve run mmtpp.serve.app:build model_uri=FOLDER``."""

from typing import Any

from ray import serve
from ray.serve import Application

from mmtpp.serve.gateway import Gateway, GatewayWithShard
from mmtpp.serve.settings import ServeSettings
from mmtpp.serve.shard import MODEL_ARGUMENTS, Shard

ACTOR_CPUS = 0.1
"""CPUs that Serve reserves for a process. Their load is not known before, so it is small: Ray
starts the application on any machine, and the operating system shares its cores."""
COMMON: dict[str, Any] = {
    "max_ongoing_requests": 1000,
    # a line for each request costs more than many requests
    "logging_config": {"enable_access_log": False},
}


def build(arguments: ServeSettings) -> Application:
    """The application for its arguments.

    The model is the shards' ``user_config``, which Serve passes on without a new process. One shard
    answers its requests itself; several ones have gateways before them.

    Args:
        arguments: Arguments of ``serve run``, or ``args`` of a configuration file.
    """
    model = {name: getattr(arguments, name) for name in MODEL_ARGUMENTS}
    settings = arguments.model_copy(update=dict.fromkeys(MODEL_ARGUMENTS, ""))
    holds_sequences: dict[str, Any] = {
        "user_config": model,
        "num_replicas": 1,
        "health_check_period_s": 5,
        "ray_actor_options": {"num_cpus": ACTOR_CPUS, "num_gpus": settings.gpus_per_shard},
    }
    if settings.num_shards == 1:
        whole = serve.deployment(
            serve.ingress()(GatewayWithShard), name="gateway", **COMMON, **holds_sequences
        )
        return whole.bind(settings)
    shard = serve.deployment(Shard, **COMMON, **holds_sequences)
    shards = [
        shard.options(name=f"shard-{index}").bind(settings, index)
        for index in range(settings.num_shards)
    ]
    gateway = serve.deployment(
        serve.ingress()(Gateway),
        name="gateway",
        **COMMON,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": settings.max_gateways,
            "target_ongoing_requests": 50,
        },
        ray_actor_options={"num_cpus": ACTOR_CPUS},
    )
    return gateway.bind(settings, shards)
