"""What MLflow shows of a run besides its numbers."""

from mmtpp.config.schema import RunConfig
from mmtpp.train.task import Task


def describe_training(config: RunConfig, job: str, task: Task) -> str:
    """What the run is, in Markdown."""
    training, lora = config.training, config.lora
    model = f"`{config.model.path}`" if config.model.path else f"a random {config.model.preset}"
    how = f"LoRA of rank {lora.rank}" if lora.rank else "all parameters"
    lines = [
        f"**{job}** of {model}, {how}, {training.num_steps:,} steps",
        "",
        f"- store: `{config.store.uri}`",
        *([f"- goes on from: `{config.model.adapter}`"] if config.model.adapter else []),
        f"- {'adapter' if lora.rank else 'model'}: `{task.output_uri}`",
        f"- checkpoints: `{task.run.run_uri}`",
        f"- compression: {config.compression.strategy}, Delta {config.compression.delta:g}; "
        f"template {config.template.style}, {config.window.max_tokens:,} tokens",
    ]
    return "\n".join(lines)
