"""Chess games as event sequences: a half-move is an event, and its image is the board after it.

The thinking time of a move is the interval before its event, in whole seconds. The board that is
known when a move is forecast is the image of the previous event. The state of the board comes from
PyPI ``chess``, the picture from Pillow.
"""

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from benchmarks.quality.converted import write_lines

BOARD_PX = 56  # 8 x 8 squares of 7 x 7 pixels; a token of the model shows 4 x 4 squares
SQUARE_PX = BOARD_PX // 8
TYPES = tuple(letter + suffix for letter in "PNBRQK" for suffix in ("", "x"))
"""Letter of the moving piece, with ``x`` for a capture. Castling is a move of the king, promotion a
move of the pawn, and taking en passant a capture by the pawn."""

_LIGHT, _DARK = (196, 196, 196), (140, 140, 140)  # squares
_SHAPES = {
    "P": ("00000", "00100", "01110", "01110", "00000"),
    "N": ("01100", "11110", "00110", "01110", "11111"),
    "B": ("00100", "01010", "10001", "01010", "00100"),
    "R": ("10101", "11111", "01110", "01110", "11111"),
    "Q": ("10101", "10101", "11111", "01110", "11111"),
    "K": ("00100", "11111", "00100", "01110", "11111"),
}
# a hue for every kind of piece, bright for white and dark for black
_HUES = {
    "P": (255, 255, 255),
    "N": (255, 120, 0),
    "B": (0, 200, 255),
    "R": (255, 0, 120),
    "Q": (120, 255, 0),
    "K": (255, 230, 0),
}
_BLACK_SHARE = 0.3  # brightness of a black piece, relative to a white one


@dataclass(slots=True)
class GameEvents:
    """The events of one game; lists have one entry per half-move.

    Attributes:
        times: Accumulated thinking times, in seconds.
        types: Names in ``TYPES``.
        texts: Moves in algebraic notation.
        boards: Placement of the pieces after the move, the first field of FEN.
    """

    times: list[int] = field(default_factory=list)
    types: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    boards: list[str] = field(default_factory=list)


def read_game(record: dict) -> GameEvents:
    """Replay a game.

    Args:
        record: A line of the data: ``id``, ``time_control`` ("initial seconds + increment") and
            ``moves``, pairs of a move in algebraic notation and the seconds left on the mover's
            clock after the move.

    Raises:
        ValueError: A move is illegal, or a thinking time is negative.
    """
    import chess  # pyright: ignore[reportMissingImports]

    initial, increment = (int(number) for number in record["time_control"].split("+"))
    clocks = [initial, initial]
    board, events, now = chess.Board(), GameEvents(), 0
    for index, (move_text, clock) in enumerate(record["moves"]):
        side = index % 2
        added = increment if index >= 2 else 0  # the first move of each side gives no increment
        thinking_s = clocks[side] + added - clock
        if thinking_s < 0:
            raise ValueError(
                f"game {record['id']}, half-move {index + 1}: the thinking time is {thinking_s} s "
                f"(clock {clocks[side]} s before, {clock} s after, increment {added} s)"
            )
        clocks[side], now = clock, now + thinking_s
        move = board.parse_san(move_text)
        piece = board.piece_at(move.from_square)
        assert piece is not None
        events.types.append(piece.symbol().upper() + "x" * board.is_capture(move))
        board.push(move)
        events.times.append(now)
        events.texts.append(move_text)
        events.boards.append(board.board_fen())
    return events


def draw_board(board: str) -> bytes:
    """Draw the pieces on a board, white at the bottom.

    Args:
        board: Placement of the pieces, the first field of FEN.

    Returns:
        A PNG of ``BOARD_PX`` x ``BOARD_PX`` pixels; equal boards have equal bytes.
    """
    image = Image.new("RGB", (BOARD_PX, BOARD_PX))
    for row, rank in enumerate(board.split("/")):
        column = 0
        for mark in rank:
            for _ in range(int(mark) if mark.isdigit() else 1):
                _draw_square(image, row, column, "" if mark.isdigit() else mark)
                column += 1
    target = io.BytesIO()
    image.save(target, format="PNG")
    return target.getvalue()


def _draw_square(image: Image.Image, row: int, column: int, piece: str) -> None:
    left, top = column * SQUARE_PX, row * SQUARE_PX
    ground = _DARK if (row + column) % 2 else _LIGHT
    image.paste(ground, (left, top, left + SQUARE_PX, top + SQUARE_PX))
    if not piece:
        return
    kind = piece.upper()
    share = 1.0 if piece.isupper() else _BLACK_SHARE
    red, green, blue = (round(share * value) for value in _HUES[kind])
    for y, line in enumerate(_SHAPES[kind]):
        for x, bit in enumerate(line):
            if bit == "1":
                image.putpixel((left + 1 + x, top + 1 + y), (red, green, blue))


def publish_games(games: Path, folder: Path, *, max_games: int = 0) -> None:
    """Write the events and the boards of all games, unless they already exist.

    Args:
        games: File of games, JSON lines packed with gzip.
        folder: Output folder: one JSON line per game with lists of ``time``, ``type``, ``text`` and
            ``image``, and a PNG for every different board.
        max_games: Number of games, in the order of the file; 0 for all games.

    Raises:
        ValueError: A game has an illegal move or a negative thinking time.
    """
    target = folder / "games.jsonl"
    if target.exists():
        return
    (folder / "images").mkdir(parents=True, exist_ok=True)
    written: set[str] = set()
    lines: list[dict[str, object]] = []
    for record in _records(games, max_games):
        events = read_game(record)
        paths = [_image_path(board) for board in events.boards]
        for path, board in zip(paths, events.boards, strict=True):
            if path not in written:
                (folder / path).write_bytes(draw_board(board))
                written.add(path)
        lines.append(
            {
                "game": record["id"],
                "time": events.times,
                "type": events.types,
                "text": events.texts,
                "image": paths,
            }
        )
    write_lines(target, lines)  # last, because the file marks a complete data set


def _records(games: Path, max_games: int) -> Iterator[dict]:
    with gzip.open(games, "rt", encoding="utf-8") as file:
        for index, line in enumerate(file):
            if max_games and index >= max_games:
                return
            yield json.loads(line)


def _image_path(board: str) -> str:
    return f"images/{hashlib.sha256(board.encode()).hexdigest()[:24]}.png"
