"""The description of a run that MLflow shows next to its metrics."""

from mmtpp.config.schema import LoraSection, ModelSection
from mmtpp.train.worker_inputs import WorkerInputs, output_kind


def describe_training(
    job: str,
    inputs: WorkerInputs,
    *,
    model: ModelSection,
    lora: LoraSection,
    num_steps: int,
    store_uri: str,
) -> str:
    """Model, data and output of a run, in Markdown.

    Args:
        job: ``pretrain`` or ``finetune``.
        inputs: What the driver sends to every worker.
        model: Model to train.
        lora: Adapter to train.
        num_steps: Number of updates.
        store_uri: URI of the store.
    """
    settings = inputs.train_sample_settings
    compression = settings.compression
    source = f"`{model.path}`" if model.path else f"a random {model.preset}"
    trained = f"LoRA of rank {lora.rank}" if lora.rank else "all parameters"
    lines = [
        f"**{job}** of {source}, {trained}, {num_steps:,} steps",
        "",
        f"- store: `{store_uri}`",
        *([f"- starts from: `{model.adapter}`"] if model.adapter else []),
        f"- {output_kind(lora)}: `{inputs.output_uri}`",
        f"- checkpoints: `{inputs.run.run_uri}`",
        f"- compression: {compression.strategy}, Delta {compression.delta:g}; "
        f"template {settings.template.style}, {settings.max_tokens:,} tokens",
    ]
    return "\n".join(lines)
