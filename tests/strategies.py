"""What property tests draw: numbers of every kind, anywhere in memory; see `conftest.py` for how many examples."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st

EXTREMES = [1e-42, 1e-38, 1e-30, 1e-21, 1e-12, 1.0, 1e12, 1e19, 1e30, 1e37]  # the first ones are denormal in float32
SIZE = st.integers(1, 5)
FEW = settings(max_examples=settings().max_examples // 4)  # where an example is a fit or two


@st.composite
def numbers(draw, *shape, dtype=torch.float32):
    """Numbers in [-1, 1]: all different, few different ones, one alone, zeros, or rows that are equal."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    drawn = {
        "different": lambda: rng.uniform(-1, 1, shape),
        "positive": lambda: rng.uniform(0, 1, shape),
        "ties": lambda: rng.integers(-1, 2, shape).astype(float),
        "constant": lambda: np.full(shape, 0.7),
        "zeros": lambda: np.zeros(shape),
        "equal rows": lambda: np.broadcast_to(rng.uniform(0, 1, shape[-1:]), shape),
        "nearly equal rows": lambda: rng.uniform(0, 1, shape[-1:]) + 1e-6 * rng.uniform(-1, 1, shape),
    }
    return torch.tensor(drawn[draw(st.sampled_from(list(drawn)))](), dtype=dtype)


@st.composite
def layouts(draw, x):
    """The same numbers elsewhere in memory."""
    way = draw(st.sampled_from(["contiguous", "transposed", "strided", "part"]))
    if way == "transposed":
        return x.mT.contiguous().mT
    if way == "strided":
        return torch.stack([x, -x], -1)[..., 0]
    return torch.cat([x, x])[len(x) :] if way == "part" else x
