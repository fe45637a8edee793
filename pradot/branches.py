"""Branches of the detector: a scale of the encoder's features and a weight of the spatial cost each."""

from typing import NamedTuple

from pradot.cost import check_alpha
from pradot.errors import PradotError, is_whole


class Branch(NamedTuple):
    """One feature scale with one weight of the spatial cost.

    Attributes
    ----------
    scale : int
        Scale of the encoder's feature maps; at 224 px 2 is 28 x 28 and 3 is 14 x 14 with most backbones, see `Encoder.grids`.
    alpha : float
        0: global prototypes; above 0: local ones.
    """

    scale: int
    alpha: float


PAPER_BRANCHES = (Branch(2, 0.0), Branch(2, 0.3), Branch(3, 0.0), Branch(3, 0.3))


def as_branches(branches):
    """Branches given as (scale, alpha) pairs; `PradotError` if they are anything else."""
    try:
        named = tuple(Branch(*branch) for branch in branches)
    except TypeError as error:
        raise PradotError(f"branches must be (scale, alpha) pairs, such as [(3, 0.3)], not {branches!r}") from error
    for branch in named:
        if not is_whole(branch.scale):
            raise PradotError(f"{branch.scale!r} is no scale; the branch {tuple(branch)} needs a whole number")
    return tuple(Branch(int(branch.scale), check_alpha(branch.alpha)) for branch in named)
