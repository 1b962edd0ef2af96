"""Scores of DanmakuTPPBench's own scripts, only for comparison with its published tables.

The benchmark has two sets of scripts, which score the same answers differently:

- ``published_``: ``eval/acc.py``, ``eval/rmse.py`` and ``eval/task-8-acc-top2.py``, for models
  behind an API. They leave answers out, allow an error of 3 and call a mean absolute error RMSE.
- ``finetuned_``: ``Finetuning/test/test_task1.py`` to ``test_task8.py``, for fine-tuned models.
  They look for the phrase of the training answers, and leave out answers without it.

An answer that stops a script with an error (a word where it converts a number) is wrong for
``published_accuracy`` and left out of ``published_rmse``.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

MAX_LENGTH = 10  # characters; the scripts leave longer answers out
MAX_DIGITS = 3  # characters of a count; longer ones are never right
TOLERANCE = 3
_POLARITY = "时间窗口内的平均情感极性分数"
_COUNT = "波峰数量为"
_NUMBER = r"\s*([+-]?\d*\.?\d+)"
# what the fine-tuning scripts put before an answer, and how they find it; longer phrases first
_PHRASES = {
    _COUNT: re.compile(_COUNT + r"\s*(\d+)"),
    "下一个时间点事件类型": re.compile(r"下一个时间点事件类型\s*(.+?)\s*。"),
    "下一个波峰点主要事件类型": re.compile(r"下一个波峰点主要事件类型\s*\[([^\]]+)\]\s*。"),
    _POLARITY: re.compile(_POLARITY + r"\s+(-?\d+\.?\d*)\s*。"),
    "弹幕情感极性分数": re.compile("弹幕情感极性分数" + _NUMBER),
    "下一个时间点": re.compile("下一个时间点" + _NUMBER),
    "下一个波峰": re.compile("下一个波峰" + _NUMBER),
}
Pair = tuple[np.ndarray, np.ndarray]
"""(N,) numerators and denominators of a metric, one for each question."""


def bare(text: str) -> str:
    """An answer without the phrase that the fine-tuning scripts put before it."""
    phrase = _phrase_of(text)
    found = _PHRASES[phrase].search(text) if phrase else None
    return (found[1] if found else text).strip()


def published_values(
    truths: Sequence[str], names: Sequence[list[str]], written: Sequence[str]
) -> dict[str, Pair]:
    """Scores of the scripts for models behind an API.

    Args:
        truths: (N,) true answers.
        names: (N,) true names in order, empty where names are not asked for.
        written: (N,) answers of the model.

    Returns:
        ``published_accuracy`` of counts, over all of them; ``published_rmse`` of numbers, over the
        answers of at most ``MAX_LENGTH`` characters that are a number; ``published_items`` of
        names, each found as a substring, in the same case: half for each of two names, otherwise
        1 for the first name alone.
    """
    every = list(zip(map(bare, truths), written, names, strict=True))
    hits = [_hit(truth, said) for truth, said, _ in every]
    errors = [_error(truth, said) for truth, said, _ in every]
    shares = [_share_of_substrings(wanted, said) if wanted else None for _, said, wanted in every]
    return {
        "published_accuracy": _pair(hits),
        "published_rmse": _pair(errors),
        "published_items": _pair(shares),
    }


def finetuned_values(
    truths: Sequence[str], names: Sequence[list[str]], written: Sequence[str]
) -> dict[str, Pair]:
    """Scores of the scripts for fine-tuned models.

    Where the true answer is bare, without the scripts' phrase, so may the written one be.

    Args:
        truths: (N,) true answers.
        names: (N,) true names in order, empty where names are not asked for.
        written: (N,) answers of the model.

    Returns:
        ``finetuned_accuracy`` of counts and of single names, equal, over the answers found;
        ``finetuned_squared_error`` of numbers, over the answers found: the scripts' RMSE is the
        root of its mean; ``finetuned_items`` of names as sets: 1 where all agree, half where some
        do, 0 where no answer is found.
    """
    right: list[float | None] = []
    squares: list[float | None] = []
    shares: list[float | None] = []
    for truth, wanted, text in zip(truths, names, written, strict=True):
        phrase, true = _phrase_of(truth), bare(truth)
        said = _found(text, phrase)
        count = _converted(int, true)
        number, value = _converted(float, true), _leading_number(said)
        first = said if phrase else next(iter(re.findall(r"\d+", text)), None)
        if count is not None:
            right.append(None if first is None else float(_converted(int, first) == count))
        elif len(wanted) == 1:
            right.append(None if said is None else float(said == true))
        else:
            right.append(None)
        squares.append(None if number is None or value is None else (value - number) ** 2)
        shares.append(_share_of_set(wanted, said) if wanted else None)
    return {
        "finetuned_accuracy": _pair(right),
        "finetuned_squared_error": _pair(squares),
        "finetuned_items": _pair(shares),
    }


def _phrase_of(text: str) -> str:
    return next((phrase for phrase in _PHRASES if text.strip().startswith(phrase)), "")


def _converted(kind: type[int] | type[float], text: str) -> float | None:
    try:
        value = float(kind(text))
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _hit(truth: str, written: str) -> float | None:
    count, said = _converted(int, truth), written.strip()
    if count is None:
        return None
    value = _converted(int, said)
    is_short = len(said) <= MAX_DIGITS and len(truth) <= MAX_DIGITS
    return float(is_short and value is not None and abs(count - value) <= TOLERANCE)


def _error(truth: str, written: str) -> float | None:
    said = written.strip().replace("*", "").strip()
    true, value = _converted(float, truth), _converted(float, said)
    if true is None or value is None or len(said) > MAX_LENGTH:
        return None
    return abs(true - value)


def _share_of_substrings(names: list[str], written: str) -> float:
    if len(names) == 2:
        return 0.5 * sum(name in written for name in names)
    return float(names[0] in written)


def _found(text: str, phrase: str) -> str | None:
    """The answer that a fine-tuning script finds in a text, or None."""
    if not phrase:
        return text.strip() or None
    patterns = [_PHRASES[phrase]]
    if phrase == _COUNT:
        patterns += [re.compile(r"(?i)The number of peaks is\s*(\d+)"), re.compile(r"(\d+)")]
    if phrase == _POLARITY:
        patterns.append(re.compile(r"(-?\d+\.?\d+)"))
    matches = (pattern.search(text) for pattern in patterns)
    return next((match[1].strip() for match in matches if match and match[1].strip()), None)


def _leading_number(text: str | None) -> float | None:
    match = re.match(_NUMBER, text or "")
    return float(match[1]) if match else None


def _share_of_set(names: list[str], written: str | None) -> float:
    true = set(names)
    said = {part.strip() for part in (written or "").split(",")} - {""}
    shared = len(true & said)
    if said == true or (shared and len(true) == 1) or (shared == len(true) == 2):
        return 1.0
    return 0.5 if shared else 0.0


def _pair(values: Sequence[float | None]) -> Pair:
    counted = np.array([value is not None for value in values], dtype=np.float64)
    return np.array([value or 0.0 for value in values]), counted
