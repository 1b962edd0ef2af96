"""The description of a run that MLflow shows next to its metrics."""

from mmtpp.train.launch.planned_training import TrainingJob
from mmtpp.train.worker_inputs import WorkerInputs, output_kind


def describe_training(job: TrainingJob, inputs: WorkerInputs) -> str:
    """Model, data and output of a run, in Markdown.

    Args:
        job: The training job, with its number of updates.
        inputs: What the driver sends to every worker.
    """
    model, lora = job.config.model, job.config.lora
    num_steps = job.config.training.num_steps
    settings = inputs.train_sample_settings
    compression = settings.compression
    source = f"`{model.path}`" if model.path else f"a random {model.preset}"
    trained = f"LoRA of rank {lora.rank}" if lora.rank else "all parameters"
    lines = [
        f"**{job.name}** of {source}, {trained}, {num_steps:,} steps",
        "",
        f"- store: `{job.config.store.uri}`",
        *([f"- starts from: `{model.adapter}`"] if model.adapter else []),
        f"- {output_kind(lora)}: `{inputs.output_uri}`",
        f"- checkpoints: `{inputs.run.run_uri}`",
        f"- compression: {compression.strategy}, Delta {compression.delta:g}; "
        f"template {settings.template.style}, {settings.max_tokens:,} tokens",
    ]
    return "\n".join(lines)
