"""Data sets of the quality benchmark whose texts or images matter, and their variants."""

import gzip
import io
import json
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.quality.chess_games import (
    BOARD_PX,
    TYPES,
    draw_board,
    publish_games,
    read_game,
)
from benchmarks.quality.converted import publish_badges, publish_given_earthquakes
from benchmarks.quality.results import BUDGET
from benchmarks.quality.run import configuration
from benchmarks.quality.sets import DATA, data_sets
from benchmarks.quality.variants import variants

START = "rnbqkbnr/pppppppp/8/8/8/8/PPPPPPPP/RNBQKBNR"
NO_CHESS = "chess is not installed: pip install -e .[quality]"


def _pixels(board: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw_board(board))))


def test_a_board_is_drawn_square_by_square():
    pixels = _pixels(START)
    assert pixels.shape == (BOARD_PX, BOARD_PX, 3)
    # e4: two squares change, the rest of the board does not
    changed = (pixels != _pixels("rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR")).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert {(row // 7, column // 7) for row, column in zip(rows, columns, strict=True)} == {
        (4, 4),
        (6, 4),
    }
    assert draw_board(START) == draw_board(START)


def test_every_piece_looks_different_on_both_colours_of_squares():
    for empty in ("", "1"):  # on a light square, on a dark square
        squares = {
            _pixels(f"{empty}{piece}{7 - len(empty)}/8/8/8/8/8/8/8")[:7, :14].tobytes()
            for piece in "PNBRQKpnbrqk"
        }
        squares.add(_pixels("8/8/8/8/8/8/8/8")[:7, :14].tobytes())
        assert len(squares) == 13


def _game(moves: list, control: str = "60+2") -> dict:
    return {"id": "x", "time_control": control, "moves": moves}


def test_a_game_becomes_events():
    pytest.importorskip("chess", reason=NO_CHESS)
    moves = [["e4", 60], ["d5", 59], ["exd5", 55], ["Qxd5", 61], ["Nf3", 57]]
    events = read_game(_game(moves))
    # the third half-move took 60 + 2 - 55 s, the fourth 59 + 2 - 61 s, the fifth 55 + 2 - 57 s
    assert events.times == [0, 1, 8, 8, 8]
    assert events.types == ["P", "P", "Px", "Qx", "N"]
    assert events.texts == ["e4", "d5", "exd5", "Qxd5", "Nf3"]
    assert events.boards[0] == "rnbqkbnr/pppppppp/8/8/4P3/8/PPPP1PPP/RNBQKBNR"
    assert events.boards[3] == "rnb1kbnr/ppp1pppp/8/3q4/8/8/PPPP1PPP/RNBQKBNR"


def test_special_moves_have_the_type_of_the_piece():
    pytest.importorskip("chess", reason=NO_CHESS)
    castling = "e4 a6 e5 d5 exd6 a5 Nf3 a4 Be2 a3 O-O axb2 dxc7 bxa1=Q cxd8=Q+ Kxd8"
    events = read_game(_game([[move, 60] for move in castling.split()], control="60+0"))
    by_text = dict(zip(events.texts, events.types, strict=True))
    assert by_text["exd6"] == "Px"  # en passant
    assert by_text["O-O"] == "K"
    assert by_text["cxd8=Q+"] == "Px"
    assert by_text["Kxd8"] == "Kx"
    assert set(events.types) <= set(TYPES)


def test_impossible_games_are_refused():
    pytest.importorskip("chess", reason=NO_CHESS)
    with pytest.raises(ValueError, match="half-move 3: the thinking time is -1 s"):
        read_game(_game([["e4", 60], ["e5", 60], ["d4", 63]]))
    with pytest.raises(ValueError, match="Ke3"):
        read_game(_game([["Ke3", 60]]))


def test_the_first_games_of_the_data(real_data: Path, tmp_path: Path):
    pytest.importorskip("chess", reason=NO_CHESS)
    games = real_data / "chess_lichess_2017" / "games.jsonl.gz"
    for _ in range(2):  # the second call finds the files
        publish_games(games, tmp_path, max_games=4)
    with gzip.open(games, "rt") as file:
        records = [json.loads(next(file)) for _ in range(4)]
    lines = [json.loads(line) for line in (tmp_path / "games.jsonl").read_text().splitlines()]
    assert [line["game"] for line in lines] == [record["id"] for record in records]
    for line, record in zip(lines, records, strict=True):
        assert line["text"] == [move for move, _ in record["moves"]]
        assert len(line["time"]) == len(line["type"]) == len(line["image"]) == len(line["text"])
        assert sorted(line["time"]) == line["time"]
        assert all((tmp_path / path).exists() for path in line["image"])


def _write_earthquakes(folder: Path, *, splits: tuple[str, ...], size: int) -> None:
    folder.mkdir()
    for split in splits:
        events = [{"time_since_start": float(second), "type_event": 0} for second in range(3)]
        content = {"dim_process": 1, split: [events] * size}
        (folder / f"{split}.pkl").write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("has_test", [True, False])
def test_given_earthquakes_keep_the_splits_of_the_files(tmp_path: Path, has_test: bool):
    splits = ("train", "dev", "test") if has_test else ("train", "dev")
    _write_earthquakes(tmp_path / "raw", splits=splits, size=50)
    target = tmp_path / "sequences.jsonl"
    publish_given_earthquakes(tmp_path / "raw", target)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert [line["time"] for line in lines] == [[0.0, 1.0, 2.0]] * 50 * len(splits)
    counts = Counter((line["sequence"].partition("#")[0], line["split"]) for line in lines)
    if has_test:
        assert counts == {(split, split): 50 for split in splits}
    else:
        assert counts["dev", "test"] == 50
        assert 0 < counts["train", "validation"] < 15
        assert counts["train", "train"] + counts["train", "validation"] == 50


def test_badges_have_their_names(real_data: Path, tmp_path: Path):
    target = tmp_path / "users.jsonl"
    publish_badges(real_data / "tpp_stackoverflow", target)
    lines = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(lines) == 3591
    assert sum(len(line["type"]) for line in lines) == 263286
    assert len({name for line in lines for name in line["type"]}) == 22


def test_variants_of_the_sets_with_texts_and_images(real_data: Path, tmp_path, monkeypatch):
    monkeypatch.setenv(DATA, str(real_data))
    sets = data_sets(tmp_path)
    names = {
        name: [variant.name for variant in variants(sets[name], similar_fraction=0.1)]
        for name in ("transcripts", "chess", "stackoverflow", "earthquake_given", "taxi")
    }
    plain = ["plain", "plain, short"]
    recent = "recent in full, older one token each"
    assert names["transcripts"] == [*plain, "without texts", recent]
    assert names["chess"] == [
        *plain,
        "without images",
        "without texts",
        recent,
        "without images and texts",
    ]
    assert names["stackoverflow"] == names["earthquake_given"] == ["plain"]
    assert names["taxi"][-1] == "without images"
    config = configuration(sets["chess"], BUDGET, without_texts=True)
    assert config.source.columns.text == ""
    assert config.store.uri.endswith("chess_store_without_texts")
    assert configuration(sets["earthquake_given"], BUDGET).split.by == "given"
