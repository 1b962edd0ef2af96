"""A small table of utterances, like that of the transcripts of space flights."""

import csv
import gzip
from pathlib import Path


def write_utterances(path: Path) -> Path:
    """Write sixty sequences of twelve utterances, gzipped; returns the path."""
    with gzip.open(path, "wt", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "seconds", "speaker", "text"])
        for part in range(60):
            for row in range(12):
                speaker = "CC" if row % 2 else "P"
                writer.writerow([f"p{part}", 7 * row + part % 5, speaker, "Roger"])
    return path
