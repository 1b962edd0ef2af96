"""Formats with fewer bits, compared with torch's own types."""

import pytest
import torch
from pydantic import ValidationError

from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import OptimizerPrecisionSection, RoundingSection
from mmtpp.core.errors import ConfigError
from mmtpp.experiments.rounding import round_


def _values() -> torch.Tensor:
    """Numbers of all magnitudes of a format, some halfway between two numbers of the format."""
    generator = torch.Generator().manual_seed(0)
    spread = torch.randn(20_000, generator=generator) * torch.logspace(-40, 4, 20_000)
    return torch.cat([spread, torch.arange(-64, 64) / 16, torch.tensor([0.0, 1 + 2**-8])])


@pytest.mark.parametrize(
    ("mantissa_bits", "exponent_bits", "dtype"),
    [(7, 8, torch.bfloat16), (10, 5, torch.float16), (2, 5, torch.float8_e5m2)],
)
def test_rounding_equals_torchs_types(mantissa_bits: int, exponent_bits: int, dtype):
    values = _values()
    expected = values.to(dtype).float()
    rounded = round_(
        values.clone(), RoundingSection(mantissa_bits=mantissa_bits, exponent_bits=exponent_bits)
    )
    assert torch.equal(rounded, expected)


def test_numbers_too_large_become_the_largest_and_nan_stays_nan():
    rounded = round_(
        torch.tensor([1e9, -1e9, torch.nan]), RoundingSection(mantissa_bits=3, exponent_bits=4)
    )
    assert rounded[:2].tolist() == [240.0, -240.0]  # (2 - 1/8) 2^7
    assert rounded[2].isnan()


def test_float32_stays_unchanged():
    values = torch.tensor([1e-45, 3.4e38, 1 + 2**-23])
    assert torch.equal(round_(values.clone(), RoundingSection()), values)


def test_stochastic_rounding_is_unbiased():
    """With 3 mantissa bits, 0.1 lies between 0.09375 and 0.1015625."""
    rounding = RoundingSection(mantissa_bits=3, mode="stochastic")
    generator = torch.Generator().manual_seed(0)
    rounded = round_(torch.full((100_000,), 0.1), rounding, generator)
    assert set(rounded.unique().tolist()) == {0.09375, 0.1015625}
    # the standard error is 1.6e-3 of the distance between the two numbers
    assert float(rounded.double().mean()) == pytest.approx(0.1, abs=4 * 1.6e-3 * 0.0078125)


def test_settings_without_effect_or_with_double_effect_are_refused():
    with pytest.raises(ValidationError, match="mode = stochastic rounds nothing"):
        RoundingSection(mode="stochastic")
    with pytest.raises(
        ValidationError, match=r"stored_states = int8 with states\.mantissa_bits = 4"
    ):
        OptimizerPrecisionSection(stored_states="int8", states=RoundingSection(mantissa_bits=4))
    with pytest.raises(ConfigError, match=r"optimizer\.beta2 = 0\.999"):
        config_from_tree(
            {"optimizer": {"beta2": 0.999}, "optimizer_precision": {"stored_states": "bfloat16"}}
        )
    config_from_tree(
        {"optimizer": {"beta2": 0.995}, "optimizer_precision": {"stored_states": "bfloat16"}}
    )
