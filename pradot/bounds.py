"""Bounds of cosines from a few directions: they tell most prototypes to be no patch's nearest."""

import torch

from pradot.cost import unit_vectors

DIRECTIONS = 96  # with 64 three times as many pairs are left, with 128 half as many
ROUNDING = 4e-6  # of a cosine in float32: more than sums over thousands of channels lose


class CosineBounds:
    """Upper bounds of the cosines between embeddings and prototypes.

    With x and z unit vectors, and x', z' their parts along k orthonormal directions, Cauchy-Schwarz gives::

        cos(x, z) = x' . z' + (x - x') . (z - z')  <=  x' . z' + |x - x'| |z - z'|,

    which is a product of vectors with k + 1 entries. k is `DIRECTIONS`; lengths of rests are rounded up. The directions are
    nearly the principal ones of the prototypes Z: some prototypes, multiplied by ``Z^T Z`` once. Eigenvectors themselves take
    several times as long and leave four pairs where these leave five.

    Parameters
    ----------
    prototypes : Tensor of shape (m, channels)
        Unit vectors.

    Attributes
    ----------
    parts : Tensor of shape (m, k + 1)
        The prototypes' coordinates along the directions, and the length of the rest.
    """

    def __init__(self, prototypes):
        some = prototypes[:: max(1, len(prototypes) // DIRECTIONS)][:DIRECTIONS]  # (k, channels)
        self._directions = torch.linalg.qr(prototypes.T @ (prototypes @ some.T)).Q  # (channels, k)
        self.parts = self.split(self.operand(prototypes))[1]

    def operand(self, x):
        """Embeddings (..., channels) as unit vectors with their parts behind: (..., channels + k + 1)."""
        whole = unit_vectors(x)
        along = whole @ self._directions  # (..., k)
        rest = (1 + ROUNDING - along.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()  # (..., 1)
        return torch.cat([whole, along, rest], -1)

    def split(self, x):
        """An operand (n, channels + k + 1) as whole vectors and their parts."""
        n_parts = self._directions.shape[1] + 1
        whole, parts = x.split([x.shape[-1] - n_parts, n_parts], -1)
        return whole.contiguous(), parts.contiguous()
