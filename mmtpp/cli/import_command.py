"""``mmtpp import``: write the model of a GGUF file as a Hugging Face folder."""

import argparse
import sys

_PRECISIONS = ("float32", "bfloat16")


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    command.description = (
        "Writes the model of a GGUF file as a Hugging Face folder for model.path: weights in "
        "safetensors, config, tokenizer, and the SHA-256 of the file. A folder that already has "
        "the model is kept. Architectures: llama, qwen2, qwen3, with byte-level BPE tokenizers."
    )
    command.add_argument("file", help="GGUF file: a local path or a remote URI")
    command.add_argument("folder", help="folder to write: a local path or a remote URI")
    command.add_argument(
        "--precision",
        choices=_PRECISIONS,
        default="float32",
        help="number format of the written weights; float32 loses nothing, bfloat16 halves the "
        "size; default: float32",
    )


def run(options: argparse.Namespace) -> None:
    """Import the file and print the folder and the SHA-256.

    Raises:
        MmtppError: The file cannot be imported, or the folder has other files.
    """
    from mmtpp.exchange.gguf_import import import_gguf  # needs the extra gguf

    source, was_there = import_gguf(options.file, options.folder, precision=options.precision)
    sys.stdout.write(
        f"{'already there' if was_there else 'written'}: {options.folder}; {source.name}, "
        f"licence {source.license or 'unknown'}, SHA-256 of {source.file}: {source.sha256}\n"
    )
