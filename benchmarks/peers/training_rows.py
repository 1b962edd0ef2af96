"""Windows that all trainings learn from, written once for all environments.

A case is a folder with the tokenizer, the untrained model, the tokens of the windows one after the
other, and their lengths and numbers of events. The windows are in the order of training; the last
ones are held out.
"""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.measured_process import run_as_trial
from benchmarks.representation import read_danmaku
from mmtpp.core.events import EventSequence
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.tokens import Tokens
from mmtpp.core.representation.window import cut_windows
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.model.base_folder import build_tiny, save_base
from mmtpp.model.tokens.vocabulary import Vocabulary, load_vocabulary, train_tokenizer

ROW_TOKENS = 2048
TEMPLATE = TemplateSettings("minimal", "none", image_tokens=4)
LONG_TOKENS = 1900  # least tokens of a window of the long case
TOKENIZER, WINDOWS, BASE = "tokenizer.json", "windows.npz", "base"


@dataclass(frozen=True, slots=True)
class Case:
    """Windows of one length.

    Attributes:
        vocabulary: Vocabulary of the tokens.
        ids: (tokens,) int32 token ids of each window.
        modality: (tokens,) uint8 modality of each token, of each window.
        num_events: (windows,) number of events.
        per_update: Number of windows in an update.
        num_train: Number of windows that are trained; the others are held out.
    """

    vocabulary: Vocabulary
    ids: list[NDArray[np.int32]]
    modality: list[NDArray[np.uint8]]
    num_events: NDArray[np.int64]
    per_update: int
    num_train: int

    @property
    def num_updates(self) -> int:
        """Number of updates of an epoch."""
        return self.num_train // self.per_update


def load_case(folder: str) -> Case:
    """Read a case that ``run`` wrote."""
    with np.load(Path(folder) / WINDOWS) as arrays:
        ends = np.cumsum(arrays["lengths"])[:-1]
        return Case(
            load_vocabulary(Path(folder)),
            np.split(arrays["ids"], ends),
            np.split(arrays["modality"], ends),
            arrays["num_events"],
            int(arrays["per_update"]),
            int(arrays["num_train"]),
        )


def _sequences(name: str, data: Path) -> list[EventSequence]:
    """The danmaku videos, or the sequences of EasyTPP's training file of earthquakes."""
    if name == "long":
        return read_danmaku(data / "danmaku_bilibili_xml")
    reader, path = build_reader("easytpp"), data / "tpp_earthquake" / "train.pkl"
    return read_file(
        reader, path.name, path.read_bytes(), types=TypeCodes(reader.type_names)
    ).sequences


def _first_windows(
    sequences: list[EventSequence], vocabulary: Vocabulary, min_tokens: int
) -> Iterator[tuple[Tokens, int]]:
    """The tokens and the number of events of the first window of each sequence that is long."""
    template = Template(vocabulary.token_ids(), TEMPLATE)
    for events in tokenise_sequences(sequences, vocabulary):
        first = cut_windows(events, template, max_tokens=ROW_TOKENS, overlap_fraction=0.0)[0]
        tokens = template.write(events.slice(first.start, first.end))
        if min_tokens <= len(tokens.ids) < ROW_TOKENS:  # LLaMA-Factory drops a full row
            yield tokens, first.end - first.start


def run(
    name: str, data: str, folder: str, per_update: int, num_updates: int, num_held_out: int
) -> dict[str, Any]:
    """Write a case.

    Args:
        name: ``short`` or ``long``.
        data: Folder of the real data.
        folder: Folder to write.
        per_update: Number of windows in an update.
        num_updates: Number of updates.
        num_held_out: Number of windows that are not trained.
    """
    sequences = _sequences(name, Path(data))
    order = np.random.default_rng(0).permutation(len(sequences))
    texts = [text for sequence in sequences for text in sequence.texts]
    tokenizer = train_tokenizer(texts or [""], size=1536)
    chosen = [sequences[index] for index in order]
    count = per_update * num_updates + num_held_out
    written = list(
        _first_windows(chosen, Vocabulary(tokenizer), LONG_TOKENS if name == "long" else 0)
    )[:count]
    if len(written) < count:
        raise ValueError(f"{name}: {len(written)} windows, {count} are needed")
    windows, events = zip(*written, strict=True)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    (path / TOKENIZER).write_text(tokenizer, encoding="utf-8")
    (path / BASE).mkdir(exist_ok=True)
    vocabulary = Vocabulary(tokenizer)
    save_base(build_tiny(vocabulary, seed=0), vocabulary, path / BASE)
    lengths = [len(tokens.ids) for tokens in windows]
    np.savez(
        path / WINDOWS,
        ids=np.concatenate([tokens.ids for tokens in windows]),
        modality=np.concatenate([tokens.modality for tokens in windows]),
        lengths=lengths,
        num_events=events,
        per_update=per_update,
        num_train=per_update * num_updates,
    )
    return {
        "windows": count,
        "median_tokens": float(np.median(lengths)),
        "trained_tokens": int(np.sum(lengths[: per_update * num_updates])),
    }


if __name__ == "__main__":
    run_as_trial(run)
