"""Patch embeddings: a feature map as it is, or all scales joined.

The paper's branches each see one scale as the encoder gives it. Joined embeddings (3 x 3 mean pooling, as in PatchCore of
Roth et al., CVPR 2022; every scale of length 1, so that none outweighs the others) are what memory banks compare.
"""

import torch
from torch.nn.functional import adaptive_avg_pool2d, avg_pool2d, interpolate, normalize

from pradot.errors import PradotError

EMBEDDINGS = ("scale", "joined")


def embed(features, scale, embedding="scale"):
    """Embeddings of the patches at one scale's grid.

    Parameters
    ----------
    features : dict of int to Tensor of shape (n_images, height, width, channels)
        Feature maps by scale, see `pradot.Encoder.features`.
    scale : int
        Whose grid it is.
    embedding : {"scale", "joined"}
        ``"scale"``: the scale's own map. ``"joined"``: every scale's 3 x 3 means (fewer at the border), brought to the grid
        (means of cells to a coarser one, bilinear to a finer one), scaled to length 1 in every patch, one after the other.

    Returns
    -------
    Tensor of shape (n_images, height, width, channels)
        With the channels of all scales if joined; then every vector has length ``sqrt(number of scales)``.

    Raises
    ------
    PradotError
        No such scale or embedding.
    """
    if scale not in features:
        raise PradotError(f"no features of scale [{scale}]; the encoder gives {sorted(features)}: make it with these scales")
    if embedding == "scale":
        return features[scale]
    if embedding != "joined":
        raise PradotError(f"unknown embedding {embedding!r}: choose one of {', '.join(EMBEDDINGS)}")
    grid = features[scale].shape[1:3]
    joined = features[scale].new_empty(*features[scale].shape[:3], sum(maps.shape[3] for maps in features.values()))
    for start in range(0, len(joined), 16):  # what pooling needs besides stays small
        parts = [_pooled(features[one][start : start + 16], grid) for one in sorted(features)]
        joined[start : start + 16] = torch.cat(parts, 3)  # (n, height, width, channels of all scales)
    return joined


def _pooled(maps, grid):
    """3 x 3 means of maps (n, h, w, channels) at another grid (height, width), of length 1: (n, height, width, channels)."""
    maps = avg_pool2d(maps.permute(0, 3, 1, 2), 3, stride=1, padding=1, count_include_pad=False)  # (n, channels, h, w)
    if grid[0] < maps.shape[2] or grid[1] < maps.shape[3]:
        maps = adaptive_avg_pool2d(maps, grid)  # (n, channels, height, width)
    elif grid != maps.shape[2:]:
        maps = interpolate(maps, size=grid, mode="bilinear", align_corners=True)  # (n, channels, height, width)
    return normalize(maps.permute(0, 2, 3, 1), dim=3)
