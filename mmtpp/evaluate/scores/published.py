"""Scores of DanmakuTPPBench's own scripts, only for comparison with its published tables.

The benchmark has two sets of scripts, which score the same answers differently:

- ``published_``: ``eval/acc.py``, ``eval/rmse.py`` and ``eval/task-8-acc-top2.py``, for models
  behind an API. They leave answers out, allow an error of 3 and call a mean absolute error RMSE.
- ``finetuned_``: ``Finetuning/test/test_task1.py`` to ``test_task8.py``, for fine-tuned models.
  They look for the phrase of the training answers and leave out answers without this phrase.

An answer that stops a script with an error, such as a word where the script converts a number, is
wrong for ``published_accuracy`` and left out of ``published_rmse``.
"""

import math
import re
from collections.abc import Sequence

import numpy as np

from mmtpp.evaluate.scores import metric_names
from mmtpp.evaluate.scores.estimates import Ratio

MAX_LENGTH = 10  # characters; the scripts leave out longer answers
MAX_DIGITS = 3  # characters; longer counts are never right
TOLERANCE = 3
_POLARITY = "时间窗口内的平均情感极性分数"
_COUNT = "波峰数量为"
_NUMBER = r"\s*([+-]?\d*\.?\d+)"
# phrases that the fine-tuning scripts put before an answer, and the patterns by which they find
# the answer; longer phrases first
_PHRASES = {
    _COUNT: re.compile(_COUNT + r"\s*(\d+)"),
    "下一个时间点事件类型": re.compile(r"下一个时间点事件类型\s*(.+?)\s*。"),
    "下一个波峰点主要事件类型": re.compile(r"下一个波峰点主要事件类型\s*\[([^\]]+)\]\s*。"),
    _POLARITY: re.compile(_POLARITY + r"\s+(-?\d+\.?\d*)\s*。"),
    "弹幕情感极性分数": re.compile("弹幕情感极性分数" + _NUMBER),
    "下一个时间点": re.compile("下一个时间点" + _NUMBER),
    "下一个波峰": re.compile("下一个波峰" + _NUMBER),
}
FINETUNED_SQUARED_ERROR = "finetuned_squared_error"
"""Numbers from which ``metric_names.FINETUNED_RMSE`` follows: the root of their mean."""


def without_phrase(text: str) -> str:
    """Remove the phrase that the fine-tuning scripts put before an answer."""
    phrase = _phrase_of(text)
    match = _PHRASES[phrase].search(text) if phrase else None
    return (match[1] if match else text).strip()


def published_values(
    truths: Sequence[str], names: Sequence[list[str]], written: Sequence[str]
) -> dict[str, Ratio]:
    """Scores of the scripts for models behind an API.

    Args:
        truths: (N,) true answers.
        names: (N,) true names in order, empty where the question is not about names.
        written: (N,) answers of the model.

    Returns:
        Numerators and denominators by metric: ``published_accuracy`` over all counts;
        ``published_rmse`` over the numbers whose written answer is a number of at most
        ``MAX_LENGTH`` characters; ``published_recall_of_names`` over names, which are searched as
        substrings in the same case: half a point for each of two names, otherwise 1 for the first
        name alone.
    """
    true = list(map(without_phrase, truths))
    return {
        metric_names.PUBLISHED_ACCURACY: _ratio(list(map(_hit, true, written))),
        metric_names.PUBLISHED_RMSE: _ratio(list(map(_error, true, written))),
        metric_names.PUBLISHED_NAMES: _ratio(
            [
                _share_of_substrings(wanted, text) if wanted else None
                for wanted, text in zip(names, written, strict=True)
            ]
        ),
    }


def finetuned_values(
    truths: Sequence[str], names: Sequence[list[str]], written: Sequence[str]
) -> dict[str, Ratio]:
    """Scores of the scripts for fine-tuned models.

    A written answer needs the scripts' phrase only where the true answer has it.

    Args:
        truths: (N,) true answers.
        names: (N,) true names in order, empty where the question is not about names.
        written: (N,) answers of the model.

    Returns:
        Numerators and denominators by metric: ``finetuned_accuracy``, share of equal counts and
        single names, over the answers that the scripts can read; ``FINETUNED_SQUARED_ERROR`` of
        numbers, over the same; ``finetuned_recall_of_names`` of names as sets: 1 where all names
        agree, one half where some agree, 0 where none agrees or no answer can be read.
    """
    right: list[float | None] = []
    squares: list[float | None] = []
    shares: list[float | None] = []
    for truth, wanted, text in zip(truths, names, written, strict=True):
        phrase, true = _phrase_of(truth), without_phrase(truth)
        answer = _find_answer(text, phrase)
        count = _convert(int, true)
        number, value = _convert(float, true), _leading_number(answer)
        first = answer if phrase else next(iter(re.findall(r"\d+", text)), None)
        if count is not None:
            right.append(None if first is None else float(_convert(int, first) == count))
        elif len(wanted) == 1:
            right.append(None if answer is None else float(answer == true))
        else:
            right.append(None)
        squares.append(None if number is None or value is None else _square(value - number))
        shares.append(_share_of_set(wanted, answer) if wanted else None)
    return {
        metric_names.FINETUNED_ACCURACY: _ratio(right),
        FINETUNED_SQUARED_ERROR: _ratio(squares),
        metric_names.FINETUNED_NAMES: _ratio(shares),
    }


def _square(error: float) -> float:
    return error * error  # infinite for a large error, where ** is an OverflowError


def _phrase_of(text: str) -> str:
    return next((phrase for phrase in _PHRASES if text.strip().startswith(phrase)), "")


def _convert(kind: type[int] | type[float], text: str) -> float | None:
    try:
        value = float(kind(text))
    except (ValueError, OverflowError):
        return None
    return value if math.isfinite(value) else None


def _hit(truth: str, written: str) -> float | None:
    """Whether a written count is right; None where the true answer is no count."""
    count, answer = _convert(int, truth), written.strip()
    if count is None:
        return None
    value = _convert(int, answer)
    is_short = len(answer) <= MAX_DIGITS and len(truth) <= MAX_DIGITS
    return float(is_short and value is not None and abs(count - value) <= TOLERANCE)


def _error(truth: str, written: str) -> float | None:
    """Absolute error of a written number; None where an answer is no number or is too long."""
    answer = written.strip().replace("*", "").strip()
    true, value = _convert(float, truth), _convert(float, answer)
    if true is None or value is None or len(answer) > MAX_LENGTH:
        return None
    return abs(true - value)


def _share_of_substrings(names: list[str], written: str) -> float:
    if len(names) == 2:
        return 0.5 * sum(name in written for name in names)
    return float(names[0] in written)


def _find_answer(text: str, phrase: str) -> str | None:
    """The answer that a fine-tuning script reads from a text; None where it reads none."""
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
    parts = {part.strip() for part in (written or "").split(",")} - {""}
    shared = len(true & parts)
    if parts == true or (shared and len(true) == 1) or (shared == len(true) == 2):
        return 1.0
    return 0.5 if shared else 0.0


def _ratio(values: Sequence[float | None]) -> Ratio:
    """Numerator and denominator of a mean over the values that are not None."""
    counted = np.array([value is not None for value in values], dtype=np.float64)
    return np.array([value or 0.0 for value in values]), counted
