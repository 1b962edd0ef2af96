"""Integrals of smooth densities from their values at even nodes.

Axes: S nodes, G edges.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import interpolate  # pyright: ignore[reportMissingTypeStubs]

FloatArray = NDArray[np.float64]
_DEGREE = 7


def spline_integrals(nodes: FloatArray, edges: FloatArray) -> FloatArray:
    """(S, G) matrix from values at nodes to the integrals of their spline from the first edge.

    Args:
        nodes: (S,) even nodes, more than 7, some of them beyond the edges on each side, because a
            spline is least exact at its ends.
        edges: (G,) edges within the nodes.
    """
    build: Any = interpolate.make_interp_spline  # pyright: ignore
    integral = build(nodes, np.eye(len(nodes)), k=_DEGREE).antiderivative()
    values: FloatArray = np.asarray(integral(edges), dtype=np.float64)
    return values.T - values[:1].T
