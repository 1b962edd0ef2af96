"""The Ray Serve application: ``serve run mmtpp.serve.app:build model_uri=FOLDER``."""

from ray import serve
from ray.serve import Application

from mmtpp.serve.gateway import Gateway
from mmtpp.serve.settings import ServeSettings
from mmtpp.serve.shard import MODEL_ARGUMENTS, Shard

ACTOR_CPUS = 0.1
"""CPUs that Serve reserves for a process. Their load is not known before, so it is small: Ray
starts the application on any machine, and the operating system shares its cores."""
MAX_QUEUED = 1000
QUIET = {"enable_access_log": False}  # a line for each request costs more than many requests


def build(arguments: ServeSettings) -> Application:
    """The application for its arguments.

    The model is the shards' ``user_config``, which Serve passes on without a new process.

    Args:
        arguments: Arguments of ``serve run``, or ``args`` of a configuration file.
    """
    model = {name: getattr(arguments, name) for name in MODEL_ARGUMENTS}
    settings = arguments.model_copy(update=dict.fromkeys(MODEL_ARGUMENTS, ""))
    shard = serve.deployment(
        Shard,
        user_config=model,
        num_replicas=1,
        max_ongoing_requests=MAX_QUEUED,
        logging_config=QUIET,
        health_check_period_s=5,
        ray_actor_options={"num_cpus": ACTOR_CPUS, "num_gpus": settings.gpus_per_shard},
    )
    shards = [
        shard.options(name=f"shard-{index}").bind(settings, index)
        for index in range(settings.num_shards)
    ]
    gateway = serve.deployment(
        serve.ingress()(Gateway),
        name="gateway",
        max_ongoing_requests=MAX_QUEUED,
        logging_config=QUIET,
        autoscaling_config={
            "min_replicas": 1,
            "max_replicas": settings.max_gateways,
            "target_ongoing_requests": 50,
        },
        ray_actor_options={"num_cpus": ACTOR_CPUS},
    )
    return gateway.bind(settings, shards)
