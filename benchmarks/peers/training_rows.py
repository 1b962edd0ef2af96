"""Writes the windows that all trainings learn from, once for all environments."""

import os

os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it on import

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.measured_process import run_as_trial
from benchmarks.peers.training_case import BASE, ROW_TOKENS, WINDOWS
from benchmarks.quality.trial import Samples
from benchmarks.representation import read_danmaku
from mmtpp.config.load import config_from_tree
from mmtpp.core.events import EventSequence
from mmtpp.core.representation.packing import pack
from mmtpp.core.representation.row import PackedRow
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.window import cut_windows
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepare import prepare
from mmtpp.data.prepared_store import load_store
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.model.base_folder import build_tiny, save_base
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from mmtpp.runtime.session import start_ray

TEMPLATE = TemplateSettings("minimal", "none", image_tokens=4)
LONG_TOKENS = 1900  # least tokens of a window of the long case
NO_FRAMES = np.zeros((0, 56, 56, 3), dtype=np.uint8)


@dataclass(frozen=True, slots=True)
class WrittenWindow:
    """A window of a case.

    Attributes:
        ids: (T,) token ids.
        modality: (T,) modality of each token.
        num_events: Number of events.
        frames: (F, 56, 56, 3) uint8 distinct images.
        image_frame: (I,) frame of each shown image.
    """

    ids: NDArray[np.int32]
    modality: NDArray[np.uint8]
    num_events: int
    frames: NDArray[np.uint8]
    image_frame: NDArray[np.int32]


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
) -> Iterator[WrittenWindow]:
    """The first window of each sequence that is long enough."""
    template = Template(vocabulary.token_ids(), TEMPLATE)
    for events in tokenise_sequences(sequences, vocabulary):
        first = cut_windows(events, template, max_tokens=ROW_TOKENS, overlap_fraction=0.0)[0]
        tokens = template.write(events.slice(first.start, first.end))
        if min_tokens <= len(tokens.ids) < ROW_TOKENS:  # LLaMA-Factory drops a full row
            num_events = first.end - first.start
            yield WrittenWindow(tokens.ids, tokens.modality, num_events, NO_FRAMES, tokens.frames)


def _windows_without_images(
    name: str, data: Path, count: int
) -> tuple[Vocabulary, list[WrittenWindow]]:
    sequences = _sequences(name, data)
    order = np.random.default_rng(0).permutation(len(sequences))
    texts = [text for sequence in sequences for text in sequence.texts]
    vocabulary = Vocabulary(train_tokenizer(texts or [""], size=1536))
    chosen = [sequences[index] for index in order]
    windows = _first_windows(chosen, vocabulary, LONG_TOKENS if name == "long" else 0)
    return vocabulary, list(itertools.islice(windows, count))


def _windows_with_images(
    folder: Path, per_update: int, num_updates: int, num_held_out: int
) -> tuple[Vocabulary, list[WrittenWindow]]:
    """Windows of the flights of 2013, each with the map of its airport where that changes.

    The windows of every update fill the same number of packed rows, as in a training, whose updates
    have a number of rows.
    """
    config = config_from_tree(
        {
            "source": {"kind": "flights", "uri": str(folder / "raw")},
            "store": {"uri": str(folder / "store")},
            "template": {"style": TEMPLATE.style, "images": "on_change"},
            "window": {"max_tokens": ROW_TOKENS},
        }
    )
    start_ray()
    prepare(config)
    store = load_store(config.store.uri)
    settings = build_sample_settings(config.sample_sections, store.manifest, split="train")
    samples = Samples.from_settings(replace(settings, packed=False), store.vocabulary)
    order = np.random.default_rng(0).permutation(len(samples)).tolist()
    held_out, rest = order[:num_held_out], order[num_held_out:]
    updates = [rest[start : start + per_update] for start in range(0, len(rest), per_update)]
    drawn = [
        [_as_window(samples.row(index)) for index in of_update]
        for of_update in updates[: 3 * num_updates]
    ]
    num_rows = [_num_rows(windows) for windows in drawn]
    usual = max(sorted(set(num_rows)), key=num_rows.count)
    even = [windows for windows, rows in zip(drawn, num_rows, strict=True) if rows == usual]
    windows = [window for of_update in even[:num_updates] for window in of_update]
    return store.vocabulary, windows + [_as_window(samples.row(index)) for index in held_out]


def _num_rows(windows: Sequence[WrittenWindow]) -> int:
    lengths = [len(window.ids) for window in windows]
    return len(pack(lengths, max_tokens=ROW_TOKENS, seed=0))


def _as_window(row: PackedRow) -> WrittenWindow:
    num_events = len(row.event_type)
    return WrittenWindow(row.input_ids, row.modality, num_events, row.frames, row.image_frame)


def _distinct_frames(
    windows: Sequence[WrittenWindow],
) -> tuple[NDArray[np.uint8], list[NDArray[np.int32]]]:
    """The distinct images of all windows, and the image that each window shows in each place."""
    all_frames = np.concatenate([window.frames for window in windows])
    if not len(all_frames):
        return all_frames, [window.image_frame for window in windows]
    flat = all_frames.reshape(len(all_frames), -1)
    _, first, inverse = np.unique(flat, axis=0, return_index=True, return_inverse=True)
    starts = np.cumsum([0, *(len(window.frames) for window in windows)])
    return all_frames[first], [
        inverse[start + window.image_frame].astype(np.int32)
        for start, window in zip(starts, windows, strict=False)
    ]


def run(
    name: str, data: str, folder: str, per_update: int, num_updates: int, num_held_out: int
) -> dict[str, Any]:
    """Write a case.

    Args:
        name: ``short``, ``long`` or ``images``.
        data: Folder of the real data.
        folder: Folder to write.
        per_update: Number of windows in an update.
        num_updates: Number of updates.
        num_held_out: Number of windows that are not trained.
    """
    count, path = per_update * num_updates + num_held_out, Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if name == "images":
        vocabulary, windows = _windows_with_images(path, per_update, num_updates, num_held_out)
    else:
        vocabulary, windows = _windows_without_images(name, Path(data), count)
    if len(windows) < count:
        raise ValueError(f"{name}: {len(windows)} windows, {count} are needed")
    vocabulary.save(path)
    (path / BASE).mkdir(exist_ok=True)
    save_base(build_tiny(vocabulary, seed=0), vocabulary, path / BASE)
    lengths = [len(window.ids) for window in windows]
    frames, image_frame = _distinct_frames(windows)
    np.savez(
        path / WINDOWS,
        ids=np.concatenate([window.ids for window in windows]),
        modality=np.concatenate([window.modality for window in windows]),
        lengths=lengths,
        num_events=[window.num_events for window in windows],
        per_update=per_update,
        num_train=per_update * num_updates,
        frames=frames,
        image_frame=np.concatenate(image_frame),
        num_images=[len(shown) for shown in image_frame],
    )
    return {
        "windows": count,
        "median_tokens": float(np.median(lengths)),
        "trained_tokens": int(np.sum(lengths[: per_update * num_updates])),
        "median_images": float(np.median([len(shown) for shown in image_frame])),
        "distinct_images": len(frames),
    }


if __name__ == "__main__":
    run_as_trial(run)
