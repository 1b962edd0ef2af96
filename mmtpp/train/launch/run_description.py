"""The description of a run that MLflow shows next to its metrics."""

from mmtpp.config.schema import RunConfig
from mmtpp.train.task import Task


def describe_training(config: RunConfig, job: str, task: Task) -> str:
    """Model, data and output of a run, in Markdown."""
    training, lora = config.training, config.lora
    model = f"`{config.model.path}`" if config.model.path else f"a random {config.model.preset}"
    trained = f"LoRA of rank {lora.rank}" if lora.rank else "all parameters"
    lines = [
        f"**{job}** of {model}, {trained}, {training.num_steps:,} steps",
        "",
        f"- store: `{config.store.uri}`",
        *([f"- starts from: `{config.model.adapter}`"] if config.model.adapter else []),
        f"- {'adapter' if lora.rank else 'model'}: `{task.output_uri}`",
        f"- checkpoints: `{task.run.run_uri}`",
        f"- compression: {config.compression.strategy}, Delta {config.compression.delta:g}; "
        f"template {config.template.style}, {config.window.max_tokens:,} tokens",
    ]
    return "\n".join(lines)
