"""The model card: what a trained folder is and how to load it, for whoever finds it alone."""

from pathlib import Path

from mmtpp.config.schema import RunConfig
from mmtpp.model.record import Answers
from mmtpp.storage.markdown import escape_markdown

CARD_FILE = "README.md"
_TAGS = (
    "pipeline_tag: time-series-forecasting",
    "tags: [temporal-point-process, event-sequences, qwen2_5_vl, mmtpp]",
)
_PLAIN = (
    "from transformers import Qwen2_5_VLForConditionalGeneration\n\n"
    "model = Qwen2_5_VLForConditionalGeneration.from_pretrained(FOLDER)\n"
)


def write_card(config: RunConfig, folder: Path, answers: Answers | None, *, steps: int) -> None:
    """Write it beside the weights, in the place of PEFT's.

    Args:
        config: of the run.
        folder: existing and local.
        answers: what the model was asked, after fine-tuning.
        steps: that it was trained.
    """
    (folder / CARD_FILE).write_text(as_card(config, answers, steps=steps), encoding="utf-8")


def write_merged_card(folder: Path, *, base: str, adapter: str, difference: float) -> None:
    """Write the card of base and adapter merged into one model.

    Args:
        folder: Existing and local.
        base: URI of the base model.
        adapter: URI of the adapter.
        difference: Largest difference of a label's likelihood to the two apart, in nats.
    """
    header = ["---", "library_name: transformers", *_base_model(base), *_TAGS, "---"]
    text = (
        "\n".join(header)
        + "\n# A model of event sequences, merged\n\n"
        + f"The adapter `{adapter}` merged into its base `{base}` by `jobs/export.py`. The "
        f"likelihood of a label differs from that of the two apart by at most {difference:.2g} "
        "nats.\n\n" + f"## Use\n\n```python\n{_PLAIN}```\n"
    )
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def _base_model(uri: str) -> list[str]:
    """The line of the header that names a base of the hub."""
    if not uri.startswith("hf://"):
        return []
    return [f"base_model: {uri.removeprefix('hf://').partition('@')[0]}"]


def as_card(config: RunConfig, answers: Answers | None, *, steps: int) -> str:
    """The card as Markdown with the hub's header."""
    lora, training = config.lora, config.training
    base = config.model.path or f"a random {config.model.preset}"
    header = ["---", f"library_name: {'peft' if lora.rank else 'transformers'}"]
    header += [*_base_model(config.model.path), *_TAGS, "---"]
    how = f"LoRA of rank {lora.rank}, alpha {lora.alpha:g}" if lora.rank else "all parameters"
    facts = {
        "base": f"`{base}`",
        "trained": f"{how}, {steps:,} steps of {training.samples_per_step} rows of at most "
        f"{config.window.max_tokens:,} tokens, learning rate {training.learning_rate:g}, seed "
        f"{training.seed}",
        "events": f"`{config.store.uri}`",
        "template": f"{config.template.style}, times of {config.template.time_bytes} bytes, images "
        f"{config.template.images}",
        "compression": f"{config.compression.strategy}, Delta {config.compression.delta:g}, "
        f"{config.compression.run_encoding}",
    }
    if answers is not None:
        facts |= {
            "asked": ", ".join(answers.tasks),
            "unit of time": f"{answers.seconds_per_unit:g} s",
            "types": ", ".join(
                escape_markdown(answers.name_of(code)) for code in answers.type_codes
            ),
            "intervals it was trained on": f"0 and {answers.intervals.smallest:g} to "
            f"{answers.intervals.largest:g}; forecasts stay within the powers of four around them",
        }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return (
        "\n".join(header)
        + f"\n# {'A forecaster' if answers else 'A model'} of event sequences\n\n"
        + "Sequences of events with a time, a type, a text and an image.\n\n"
        + f"| | |\n|---|---|\n{rows}\n\n"
        + _usage(config, answers)
        + "\nTimes and types are bytes written as tokens of their own in spare rows of the "
        "vocabulary (`vocabulary.json`); text can never become one of them. Weights are "
        "safetensors, and no code comes with them. What the model does not know: events outside "
        "the types and intervals above, and anything after its training events.\n"
    )


def _usage(config: RunConfig, answers: Answers | None) -> str:
    if config.lora.rank:
        plain = (
            "from peft import PeftModel\n"
            "from transformers import Qwen2_5_VLForConditionalGeneration\n\n"
            "base = Qwen2_5_VLForConditionalGeneration.from_pretrained(BASE)\n"
            "model = PeftModel.from_pretrained(base, FOLDER)\n"
        )
    else:
        plain = _PLAIN
    own = ""
    if answers is not None and {"time", "type"} & set(answers.tasks):
        own = (
            "```python\nimport mmtpp\n\n"
            "forecaster = mmtpp.Forecaster.from_pretrained(FOLDER)\n"
            "sequence = forecaster.sequence(times=[0.0, 1.0], types=TYPES, texts=TEXTS)\n"
            "print(forecaster.forecast(sequence).quantiles((0.05, 0.5, 0.95)))\n```\n\n"
        )
    return f"## Use\n\n{own}Without mmtpp:\n\n```python\n{plain}```\n"
