"""Patch embeddings: a feature map as it is, or all scales joined.

The paper's branches each see one scale as the encoder gives it. Pooled embeddings (3 x 3 means, as in PatchCore of Roth et al.,
CVPR 2022; every scale of length 1, so that none outweighs the others) are what memory banks compare. Joined ones are the same
without the means: a mean over 3 x 3 patches hides thin defects.
"""

import torch
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate

from pradot.cost import unit_vectors
from pradot.errors import PradotError
from pradot.memory import KEEP_GB, room

EMBEDDINGS = ("scale", "joined", "pooled")


def embed(features, scale, embedding="scale", *, keep_gb=KEEP_GB, folder=None):
    """Embeddings of the patches at one scale's grid.

    Parameters
    ----------
    features : dict of int to Tensor of shape (n_images, height, width, channels)
        Feature maps by scale, see `pradot.Encoder.features`.
    scale : int
        Whose grid it is.
    embedding : {"scale", "joined", "pooled"}
        ``"scale"``: the scale's own map. ``"joined"``: every scale's map brought to the grid (means of cells to a coarser one,
        bilinear to a finer one), scaled to length 1 in every patch, one after the other. ``"pooled"``: the same of the maps'
        3 x 3 means (fewer at the border).
    keep_gb, folder
        See `pradot.memory.room`, where joined embeddings are made.

    Returns
    -------
    Tensor of shape (n_images, height, width, channels)
        With the channels of all scales unless ``"scale"``; then every vector has length ``sqrt(number of scales)``.

    Raises
    ------
    PradotError
        No such scale or embedding, or the scales' maps do not belong together.
    """
    if scale not in features:
        raise PradotError(f"no features of scale [{scale}]; the encoder gives {sorted(features)}: make it with these scales")
    if embedding == "scale":
        return features[scale]
    if embedding not in EMBEDDINGS:
        raise PradotError(f"unknown embedding {embedding!r}: choose one of {', '.join(EMBEDDINGS)}")
    for one, maps in features.items():
        if maps.ndim != 4 or not maps.is_floating_point() or len(maps) != len(features[scale]):
            raise PradotError(
                f"features of scale {one} are of shape {tuple(maps.shape)} and {maps.dtype}: to be joined, those of all scales "
                f"must be floating-point numbers (n_images, height, width, channels) of the same {len(features[scale])} images"
            )
    grid = features[scale].shape[1:3]
    shape = (*features[scale].shape[:3], sum(maps.shape[3] for maps in features.values()))
    joined = room(shape, keep_gb, folder, features[scale].dtype)
    for start in range(0, len(joined), 16):  # what pooling needs besides stays small
        maps = (features[one][start : start + 16].permute(0, 3, 1, 2) for one in sorted(features))  # (n, channels, h, w) each
        if embedding == "pooled":
            maps = (avg_pool2d(part, 3, stride=1, padding=1, count_include_pad=False) for part in maps)
        parts = [_at_grid(part, grid) for part in maps]
        joined[start : start + 16] = torch.cat(parts, 3)  # (n, height, width, channels of all scales)
    return joined


def _at_grid(maps, grid):
    """Maps (n, channels, h, w) at another grid (height, width), in every patch of length 1: (n, height, width, channels)."""
    if grid[0] < maps.shape[2] or grid[1] < maps.shape[3]:
        maps = adaptive_avg_pool2d(maps, grid)  # (n, channels, height, width)
    elif grid != maps.shape[2:]:
        maps = interpolate(maps, size=grid, mode="bilinear", align_corners=True)  # (n, channels, height, width)
    return unit_vectors(maps.permute(0, 2, 3, 1))
