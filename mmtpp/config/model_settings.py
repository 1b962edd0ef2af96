"""Settings of the model."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from mmtpp.config.affects import Affects
from mmtpp.config.section import Fraction, Section, Uri

FullSize = Literal["3b", "7b"]


class ModelSection(Section):
    """The model: its kind, size and weights."""

    preset: Annotated[Literal["tiny", FullSize, "expert"], Affects.RUN] = "tiny"
    """Kind and size of the model. ``tiny`` is randomly initialised and runs on a CPU; ``3b`` and
    ``7b`` are Qwen2.5-VL and need ``model.path``. ``expert`` is not a language model but the
    temporal expert (section ``expert``), which reads the lengths and single words of texts and
    small copies of the newest two images, and trains in minutes on a CPU. A model of soft tokens is
    chosen by ``template.style = "soft"``."""
    path: Annotated[Uri, Affects.RUN] = ""
    """Folder with weights and tokenizer (Hugging Face layout): a local path, s3://, gs://, az:// or
    hf://OWNER/NAME@COMMIT. Its ``config.json`` decides the family: Qwen2.5-VL, Qwen3-VL, Llama,
    Qwen2 or Qwen3. Empty: a new ``tiny``."""
    adapter: Annotated[Uri, Affects.RUN] = ""
    """Folder of a PEFT adapter for ``model.path``, from which ``pretrain`` and ``finetune``
    continue. Empty: no adapter."""
    expert: Annotated[Uri, Affects.EVALUATION, Affects.PREDICTION] = ""
    """Folder that ``combine`` wrote: a temporal expert, and the gate that mixes its forecasts with
    those of ``model.path``. ``combine`` itself takes the folder of an expert that ``pretrain``
    wrote. Empty: the model alone."""
    tokenizer_size: Annotated[int, Field(ge=512, le=65536), Affects.STORE] = 1536
    """Number of entries of the byte-level BPE that ``prepare`` trains for a new ``tiny``, 512 to
    65536."""
    tiny_width: Annotated[int, Field(ge=24, le=3072, multiple_of=24), Affects.RUN] = 96
    """Width of the language model of a new ``tiny``, a multiple of 24 up to 3072. A folder of
    weights has its own width."""
    tiny_layers: Annotated[int, Field(ge=1, le=64), Affects.RUN] = 3
    """Number of layers of the language model of a new ``tiny``, 1 to 64."""
    precision: Annotated[Literal["auto", "float32", "bfloat16"], Affects.RUN] = "auto"
    """Number format in which the model computes. ``auto``: bfloat16 on GPUs, float32 on CPUs."""


class LoraSection(Section):
    """Low-rank adaptation of the language model."""

    rank: Annotated[NonNegativeInt, Affects.RUN] = 16
    """Rank of the LoRA matrices; 0 trains all parameters."""
    alpha: Annotated[PositiveInt, Affects.RUN] = 64
    """Numerator of LoRA's scale, above 0: the update is scaled by alpha / rank."""
    dropout: Annotated[Fraction, Affects.RUN] = 0.1
    """Probability of dropout before the first LoRA matrix, at least 0 and less than 1."""
