"""A small data set in the published JSON format, with learnable periodic events."""

import io
import json

import numpy as np
from PIL import Image

from mmtpp.storage.paths import join, write_bytes

NUM_SEQUENCES, NUM_EVENTS = 24, 40


def publish_events(uri: str, *, bad: bool = False) -> None:
    """Write 24 sequences of 40 events with three images; ``bad`` adds four invalid records."""
    for name, color in {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}.items():
        target = io.BytesIO()
        Image.new("RGB", (80, 60), color).save(target, format="PNG")
        write_bytes(join(uri, "images", f"{name}.png"), target.getvalue())
    for index in range(NUM_SEQUENCES):
        rng = np.random.default_rng(index)
        waits = np.where(np.arange(NUM_EVENTS) % 4 == 0, 60.0, 5.0) + rng.integers(0, 2, NUM_EVENTS)
        events = [
            {
                "time": float(time),
                "text": f"event {row % 4} of line {index % 3}",
                "image_path": f"images/{['red', 'green', 'blue'][row % 3]}.png",
                "TPP_attribute": {"time_since_last_event": float(wait), "event_type": row % 4},
            }
            for row, (time, wait) in enumerate(zip(np.cumsum(waits), waits, strict=True))
        ]
        if bad and index == 3:
            events += [
                {**events[0], "time": 1e300},
                {**events[0], "image_path": "images/missing.png"},
                {**events[0], "image_path": "../../secret.png"},
                {**events[0], "TPP_attribute": {}},
            ]
        write_bytes(join(uri, f"line-{index:02d}.json"), json.dumps(events).encode())


def publish_many(uri: str, files: int) -> None:
    """Write files of one sequence, with two events and no images."""
    events = [
        {
            "time": float(i),
            "text": "x",
            "image_path": None,
            "TPP_attribute": {"event_type": 0, "time_since_last_event": 1.0},
        }
        for i in range(2)
    ]
    data = json.dumps(events).encode()
    for index in range(files):
        write_bytes(f"{uri}/{index // 1000:03d}/{index:06d}.json", data)
