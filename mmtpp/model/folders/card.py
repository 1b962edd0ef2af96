"""The model card: a page in the model folder that describes the model and how to load it."""

import re
from dataclasses import dataclass
from pathlib import Path

from mmtpp.config.schema import (
    LoraSection,
    ModelSection,
    SampleSections,
    TemplateSection,
    TrainingSection,
)
from mmtpp.core.representation.style_layout import SOFT
from mmtpp.model.folders.record import TrainedTasks

CARD_FILE = "README.md"
_MARKUP = re.compile(r"([\\`*_{}\[\]()#+!|<>&~])")
_USE_WITH_MMTPP = (
    "```python\nimport mmtpp\n\n"
    "forecaster = mmtpp.Forecaster.from_pretrained(FOLDER)\n"
    "sequence = forecaster.sequence(times=[0.0, 1.0], types=TYPES, texts=TEXTS)\n"
    "print(forecaster.forecast(sequence).quantiles((0.05, 0.5, 0.95)))\n```\n\n"
)


@dataclass(frozen=True, slots=True)
class CardBackbone:
    """How transformers loads the model that a card describes.

    Attributes:
        model_type: ``model_type`` of the base.
        class_name: Class of transformers.
        num_tokens: Number of rows that the embedding needs before PEFT can load the adapter; 0 if
            the base has them.
    """

    model_type: str = "qwen2_5_vl"
    class_name: str = "Qwen2_5_VLForConditionalGeneration"
    num_tokens: int = 0

    @property
    def tags(self) -> tuple[str, str]:
        """Lines of the card's header."""
        return (
            "pipeline_tag: time-series-forecasting",
            f"tags: [temporal-point-process, event-sequences, {self.model_type}, mmtpp]",
        )

    @property
    def load_model(self) -> str:
        """Code that loads a whole model."""
        return (
            f"from transformers import {self.class_name}\n\n"
            f"model = {self.class_name}.from_pretrained(FOLDER)\n"
        )

    @property
    def load_adapter(self) -> str:
        """Code that loads an adapter on its base."""
        resize = f"base.resize_token_embeddings({self.num_tokens}, mean_resizing=False)\n"
        return (
            "from peft import PeftModel\n"
            f"from transformers import {self.class_name}\n\n"
            f"base = {self.class_name}.from_pretrained(BASE)\n"
            f"{resize if self.num_tokens else ''}"
            "model = PeftModel.from_pretrained(base, FOLDER)\n"
        )


@dataclass(frozen=True, slots=True)
class ModelProvenance:
    """Settings of the training that a model comes from.

    Attributes:
        sections: Sections that shaped the samples.
        model: Base model.
        lora: Adapter, or rank 0 for a whole model.
        training: Steps and learning rate.
        trained_tasks: Tasks that the model was trained on; None for a model of stage 1.
        backbone: How transformers loads the model.
    """

    sections: SampleSections
    model: ModelSection
    lora: LoraSection
    training: TrainingSection
    trained_tasks: TrainedTasks | None
    backbone: CardBackbone = CardBackbone()


def write_card(provenance: ModelProvenance, folder: Path, *, steps: int) -> None:
    """Write the model card next to the weights; replaces the card that PEFT writes.

    Args:
        provenance: Settings of the training.
        folder: Existing local folder.
        steps: Number of steps of the training.
    """
    (folder / CARD_FILE).write_text(format_card(provenance, steps=steps), encoding="utf-8")


def write_merged_card(
    folder: Path,
    *,
    base: str,
    adapter: str,
    difference: float,
    backbone: CardBackbone | None = None,
) -> None:
    """Write the card of a base model with a merged adapter.

    Args:
        folder: Existing local folder.
        base: URI of the base model.
        adapter: URI of the adapter.
        difference: Largest difference of a label's likelihood between the merged model and the
            base with its adapter, in nats.
        backbone: How transformers loads the model; None for Qwen2.5-VL.
    """
    backbone = backbone or CardBackbone()
    header = ["---", "library_name: transformers", *_base_model(base), *backbone.tags, "---"]
    text = (
        "\n".join(header)
        + "\n# A model of event sequences, merged\n\n"
        + f"The adapter `{adapter}` merged into its base `{base}` by `jobs/export.py`. The "
        "likelihood of a label differs from that of the base with its adapter by at most "
        f"{difference:.2g} nats.\n\n" + f"## Use\n\n```python\n{backbone.load_model}```\n"
    )
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def expert_card(trained_tasks: TrainedTasks, *, store_uri: str, reads_images: bool = False) -> str:
    """The card of a temporal expert as Markdown.

    Args:
        trained_tasks: Types, unit of time and intervals of the training.
        store_uri: Store that the expert was trained on.
        reads_images: Whether the expert reads the images of a store that has some.
    """
    contents = "texts and images" if reads_images else "texts; it reads no images"
    facts = {"events": f"`{store_uri}`", **_task_facts(trained_tasks)}
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return (
        "---\nlibrary_name: mmtpp\npipeline_tag: time-series-forecasting\n"
        "tags: [temporal-point-process, event-sequences, mmtpp]\n---\n"
        "# A temporal expert\n\nForecasts the next event of a sequence from times, types and, "
        f"where the store has them, {contents}.\n\n| | |\n|---|---|\n{rows}\n\n"
        f"## Use\n\n{_USE_WITH_MMTPP}"
        "The weights are stored as safetensors; the folder contains no code.\n"
    )


def _base_model(uri: str) -> list[str]:
    """The header line with the name of the base model, for a base from the Hugging Face Hub."""
    if not uri.startswith("hf://"):
        return []
    return [f"base_model: {uri.removeprefix('hf://').partition('@')[0]}"]


def _calendar(template: TemplateSection) -> str:
    if template.calendar == "none":
        return "no calendar"
    return f"calendar up to the {template.calendar} in {template.time_zone}"


def format_card(provenance: ModelProvenance, *, steps: int) -> str:
    """The card as Markdown, with the header of the Hugging Face Hub."""
    model, lora, training = provenance.model, provenance.lora, provenance.training
    sections, trained_tasks = provenance.sections, provenance.trained_tasks
    template, compression = sections.template, sections.compression
    base = model.path or f"a random {model.preset}"
    header = ["---", f"library_name: {'peft' if lora.rank else 'transformers'}"]
    header += [*_base_model(model.path), *provenance.backbone.tags, "---"]
    method = f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}" if lora.rank else "all parameters"
    facts = {
        "base": f"`{base}`",
        "training": f"{method}, {steps:,} steps of {training.samples_per_step} rows of at most "
        f"{sections.window.max_tokens:,} tokens, learning rate {training.learning_rate:g}, seed "
        f"{training.seed}",
        "events": f"`{sections.store.uri}`",
        "template": f"{template.style}, times of {template.time_bytes} bytes, images "
        f"{template.images}, {_calendar(template)}, types as {template.types}",
        "compression": f"{compression.strategy}, Delta {compression.delta:g}, "
        f"{compression.run_encoding}",
    }
    if trained_tasks is not None:
        facts |= _task_facts(trained_tasks)
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    reading = _SOFT_TOKENS if template.style == SOFT else _byte_tokens(provenance.backbone)
    return (
        "\n".join(header)
        + f"\n# {'A forecaster' if trained_tasks else 'A model'} of event sequences\n\n"
        + "Sequences of events with a time, a type, a text and an image.\n\n"
        + f"| | |\n|---|---|\n{rows}\n\n"
        + _usage(provenance)
        + f"\n{reading} The weights are stored as "
        "safetensors; the folder contains no code. The model cannot predict types or intervals "
        "outside the ones above, and it has not seen anything after its training events.\n"
    )


_SOFT_TOKENS = (
    "Every event is one token, whose vector holds its type, its text, its image and a memory of "
    "all earlier events. `soft.json` and `soft.safetensors` hold what is needed beside the "
    "backbone; transformers alone cannot compute forecasts."
)


def _byte_tokens(backbone: CardBackbone) -> str:
    row = "new" if backbone.num_tokens else "spare"
    return (
        f"Times and types are bytes. Each byte is a token in a {row} row of the embedding "
        "(`vocabulary.json`), and no text is tokenised to such a token."
    )


def _task_facts(trained_tasks: TrainedTasks) -> dict[str, str]:
    return {
        "tasks": ", ".join(trained_tasks.tasks),
        "unit of time": f"{trained_tasks.seconds_per_unit:g} s",
        "types": ", ".join(
            escape_markdown(trained_tasks.name_of(code)) for code in trained_tasks.type_codes
        ),
        "intervals in training": f"0 and {trained_tasks.interval_range.smallest:g} to "
        f"{trained_tasks.interval_range.largest:g}; forecasts stay between the powers of four "
        "around this range",
    }


def _usage(provenance: ModelProvenance) -> str:
    backbone, trained_tasks = provenance.backbone, provenance.trained_tasks
    without_mmtpp = backbone.load_adapter if provenance.lora.rank else backbone.load_model
    with_mmtpp = ""
    if trained_tasks is not None and trained_tasks.can_forecast:
        with_mmtpp = _USE_WITH_MMTPP
    if provenance.sections.template.style == SOFT:
        return f"## Use\n\n{with_mmtpp}"
    return f"## Use\n\n{with_mmtpp}Without mmtpp:\n\n```python\n{without_mmtpp}```\n"


def escape_markdown(text: str) -> str:
    """Escape text so that Markdown shows it unchanged, on one line and in one cell of a table."""
    return _MARKUP.sub(r"\\\1", " ".join(text.split()))
