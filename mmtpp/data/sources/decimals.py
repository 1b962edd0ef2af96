"""Decimal numbers of Parquet and Arrow files, as the numbers that other file formats have."""

import math
from decimal import MAX_PREC, Context, Decimal

_LARGEST_EXPONENT = 308
_EXACT = Context(prec=MAX_PREC)


def plain_number(value: object) -> object:
    """A decimal as the number that other file formats have; any other value unchanged.

    ``Decimal("7.00")`` becomes the integer 7, ``Decimal("1.50")`` the float 1.5, and NaN and the
    infinities become floats. A decimal with more digits than a float has, or beyond its range,
    stays, without its trailing zeros: two ids do not become one, nor one id two. Files and tables
    in memory have no scalars of NumPy: they give Python's values.
    """
    if not isinstance(value, Decimal):
        return value
    if value.is_nan():
        return math.nan  # also a signalling NaN, which raises when it is compared
    if value.is_infinite():
        return float(value)
    if value.adjusted() > _LARGEST_EXPONENT:
        return value
    if value == value.to_integral_value():
        return int(value)
    nearest = float(value)
    return nearest if Decimal(str(nearest)) == value else value.normalize(_EXACT)
