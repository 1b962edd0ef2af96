"""A large data set for the benchmark of ``prepare``: copies of real danmaku under new names.

A copy of a video has the same comments, a new name and new frames. The frames are generated
pictures of smooth shapes with grain, because the videos are not part of the data.
"""

import io
import json
import os
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from mmtpp.core.events import EventSequence
from mmtpp.data.sources import build_reader
from mmtpp.data.sources.checking import read_file
from mmtpp.data.sources.type_codes import TypeCodes
from mmtpp.storage.paths import join, write_bytes

FRAMES_PER_VIDEO = 14
WIDTH, HEIGHT = 480, 270


@dataclass(frozen=True)
class Published:
    """Size of a published data set.

    Attributes:
        events: Number of events.
        videos: Number of videos.
        frames: Number of frames.
        event_bytes: Total size of the event files.
        image_bytes: Total size of the image files.
    """

    events: int
    videos: int
    frames: int
    event_bytes: int
    image_bytes: int


def read_videos(folder: Path) -> list[EventSequence]:
    """Read the comments of the real videos."""
    reader = build_reader("danmaku")
    return [
        sequence
        for path in sorted(folder.glob("*.xml"))
        for sequence in read_file(
            reader, path.name, path.read_bytes(), types=TypeCodes(reader.type_names)
        ).sequences
    ]


def publish(
    uri: str, videos: list[EventSequence], copies: range, *, with_images: bool
) -> Published:
    """Write copies of all videos in the published format, optionally with frames."""
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        sizes = list(
            pool.map(
                _publish_copy,
                *zip(*[(uri, videos, copy, with_images) for copy in copies], strict=True),
            )
        )
    event_bytes, image_bytes = (sum(pair[part] for pair in sizes) for part in (0, 1))
    count = len(copies) * len(videos)
    return Published(
        events=len(copies) * sum(map(len, videos)),
        videos=count,
        frames=count * FRAMES_PER_VIDEO if with_images else 0,
        event_bytes=event_bytes,
        image_bytes=image_bytes,
    )


def _publish_copy(
    uri: str, videos: list[EventSequence], copy: int, with_images: bool
) -> tuple[int, int]:
    sizes = [0, 0]

    def put(file: tuple[int, str, bytes]) -> None:
        write_bytes(join(uri, file[1]), file[2])

    with ThreadPoolExecutor(8) as pool:
        for video in videos:
            name = f"{video.sequence_id}-{copy:03d}"
            files = [(0, f"{name}.json", as_json(video, name, with_images=with_images))]
            if with_images:
                seed = int.from_bytes(name.encode()[-8:], "big")
                files += [
                    (1, frame_path(name, index), draw_frame(seed * FRAMES_PER_VIDEO + index))
                    for index in range(FRAMES_PER_VIDEO)
                ]
            for kind, _, data in files:
                sizes[kind] += len(data)
            list(pool.map(put, files))
    return sizes[0], sizes[1]


def frame_path(name: str, index: int) -> str:
    """Path of a frame of a video."""
    return f"frames/{name}/{index:02d}.jpg"


def as_json(video: EventSequence, name: str, *, with_images: bool) -> bytes:
    """A video in the published format; a comment has the frame of its part of the video."""
    length = max(float(video.times[-1]), 1.0)
    frame = np.minimum(video.times / length * FRAMES_PER_VIDEO, FRAMES_PER_VIDEO - 1).astype(int)
    waits = np.diff(video.times, prepend=video.times[0])
    events = [
        {
            "time": time,
            "text": text,
            "image_path": frame_path(name, index) if with_images else None,
            "TPP_attribute": {"time_since_last_event": wait, "event_type": kind},
        }
        for time, text, index, wait, kind in zip(
            video.times.tolist(),
            video.texts,
            frame.tolist(),
            waits.tolist(),
            video.types.tolist(),
            strict=True,
        )
    ]
    return json.dumps(events, ensure_ascii=False).encode()


def draw_frame(seed: int) -> bytes:
    """A JPEG of smooth shapes with grain, about as large as a real video frame."""
    rng = np.random.default_rng(seed % 2**63)
    coarse = Image.fromarray(rng.integers(0, 256, (9, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.int16)
    shift = int(rng.integers(0, WIDTH))
    grainy = np.clip(smooth + np.roll(_GRAIN, shift, axis=1), 0, 255).astype(np.uint8)
    sink = io.BytesIO()
    Image.fromarray(grainy).save(sink, format="JPEG", quality=85)
    return sink.getvalue()


_GRAIN = np.random.default_rng(0).normal(0, 5, (HEIGHT, WIDTH, 1)).astype(np.int16)
