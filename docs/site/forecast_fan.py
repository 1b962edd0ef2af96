"""Draw docs/pictures/forecast_fan.svg: futures of a simulated process as a fan of quantiles.

python docs/site/forecast_fan.py

The process is a Hawkes process whose parameters are known, so the forecast is the true one: 2,000
continuations of the same past. ``Forecaster.forecast(futures=…)`` draws continuations from a model.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

PICTURE = Path(__file__).parents[1] / "pictures" / "forecast_fan.svg"
BASE_RATE, JUMP, DECAY = 0.3, 0.6, 1.0  # events per minute; each event raises the rate by JUMP
PAST_MIN, HORIZON_MIN, NUM_FUTURES = 30.0, 20.0, 2000
SEED = 11
LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
WIDTH, HEIGHT, MARGIN = 720, 360, 50

STYLE = """  <style>
    text { font: 13px system-ui, sans-serif; fill: #1d2330 }
    .card { fill: #fcfcfd; stroke: #d0d4dc }
    .axis { stroke: #8791a3; fill: none }
    .wide { fill: #c9d5f6 }
    .narrow { fill: #93abea }
    .median { stroke: #2f4fb5; stroke-width: 2; stroke-dasharray: 6 4; fill: none }
    .true { stroke: #c2410c; stroke-width: 2; fill: none }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6e9f0 }
      .card { fill: #1b1f2a; stroke: #3a4152 }
      .wide { fill: #2a3560 }
      .narrow { fill: #435ab0 }
      .median { stroke: #b9c8ff }
      .true { stroke: #ff9a62 }
    }
  </style>
"""


def simulate(rng: np.random.Generator, past: list[float], start: float, end: float) -> list[float]:
    """Draw the events of a Hawkes process between two times, given its past, by thinning."""
    excitation = JUMP * sum(np.exp(-DECAY * (start - time)) for time in past)
    now, events = start, []
    while True:
        bound = BASE_RATE + excitation
        wait = rng.exponential(1 / bound)
        now += wait
        if now >= end:
            return events
        excitation *= np.exp(-DECAY * wait)
        if rng.random() * bound < BASE_RATE + excitation:
            events.append(now)
            excitation += JUMP


def draw() -> str:
    """The picture as SVG."""
    rng = np.random.default_rng(SEED)
    past = simulate(rng, [], 0.0, PAST_MIN)
    end = PAST_MIN + HORIZON_MIN
    grid = np.linspace(PAST_MIN, end, 41)
    futures = [simulate(rng, past, PAST_MIN, end) for _ in range(NUM_FUTURES)]
    counts = len(past) + np.array([np.searchsorted(future, grid) for future in futures])
    fan = np.quantile(counts, LEVELS, axis=0)
    true = past + simulate(rng, past, PAST_MIN, end)
    top = 1.08 * max(fan.max(), len(true))

    def points(times: NDArray, values: NDArray) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * np.asarray(times) / end
        up = HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * np.asarray(values) / top
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(across, up, strict=True))

    def band(low: int, high: int) -> str:
        return points(np.r_[grid, grid[::-1]], np.r_[fan[low], fan[high][::-1]])

    steps = np.r_[np.repeat(true, 2), end]
    levels = np.r_[0, np.repeat(np.arange(1, len(true) + 1), 2)]
    title = "Number of events over time: the past, and quantiles of 2,000 sampled futures"
    label_x = MARGIN + (WIDTH - 2 * MARGIN) * PAST_MIN / end
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">\n'
        f"  <title>{title}</title>\n{STYLE}"
        f'  <rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{HEIGHT - 1}" '
        'rx="12"/>\n'
        f'  <polygon class="wide" points="{band(0, 4)}"/>\n'
        f'  <polygon class="narrow" points="{band(1, 3)}"/>\n'
        f'  <polyline class="median" points="{points(grid, fan[2])}"/>\n'
        f'  <polyline class="true" points="{points(steps, levels)}"/>\n'
        f'  <path class="axis" d="M{MARGIN} {MARGIN - 20} V{HEIGHT - MARGIN} H{WIDTH - MARGIN}"/>\n'
        f'  <path class="axis" d="M{label_x:.1f} {MARGIN - 20} V{HEIGHT - MARGIN}"/>\n'
        f'  <text x="{label_x - 14:.1f}" y="{HEIGHT - 28}">now</text>\n'
        f'  <text x="{WIDTH - MARGIN - 50}" y="{HEIGHT - 28}">minutes</text>\n'
        f'  <text x="{MARGIN}" y="22">number of events</text>\n'
        f'  <text x="{MARGIN + 20}" y="70">line: what happened</text>\n'
        f'  <text x="{MARGIN + 20}" y="90">dashed: median of the futures</text>\n'
        f'  <text x="{MARGIN + 20}" y="110">bands: 50 % and 90 % of the futures</text>\n'
        "</svg>\n"
    )


if __name__ == "__main__":
    PICTURE.write_text(draw())
