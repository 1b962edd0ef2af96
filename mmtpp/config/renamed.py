"""Settings that were renamed. The error for an old name suggests the new one."""

RENAMED: dict[str, str] = {
    "evaluation.batch_windows": "evaluation.windows_per_batch",
    "evaluation.futures": "evaluation.num_futures",
    "evaluation.origins": "evaluation.origins_per_sequence",
    "evaluation.written_texts": "evaluation.num_generated_texts",
    "expert.events_per_update": "expert.events_per_step",
    "expert.max_updates": "expert.max_steps",
    "precision.gradients": "optimizer_precision.gradients",
    "precision.states": "optimizer_precision.states",
    "precision.stored_states": "optimizer_precision.stored_states",
    "precision.weights": "optimizer_precision.weights",
    "prediction.futures": "prediction.num_futures",
    "prediction.text": "prediction.generate_text",
    "source.flights_sequence": "source.flights.sequence",
    "source.max_workers": "source.max_processes",
    "training.upload_patience_s": "training.upload_timeout_s",
}
"""New path of every renamed setting or section, by its old path ``section.key``."""


def holds_renamed(section: str) -> bool:
    """Whether a section that no longer exists had settings that were renamed."""
    return any(path.startswith(f"{section}.") for path in RENAMED)
