"""Anomaly maps: patch scores smoothed, brought to the images' sizes, averaged over branches, and scored."""

import math

import numpy as np
import torch
from torchvision.transforms.functional import gaussian_blur


def smoothed(maps, sigma):
    """Patch scores smoothed by a Gaussian, with mirrored borders.

    Parameters
    ----------
    maps : Tensor of shape (n_images, height, width)
    sigma : float
        Its standard deviation, in sides of the image; PatchCore's and PaDiM's code has 4 pixels at 224. 0: none.

    Returns
    -------
    Tensor of shape (n_images, height, width)
    """
    if sigma == 0:
        return maps
    cells = [sigma * side for side in maps.shape[1:]]
    # A mirror is at most as long as the map.
    sizes = [2 * min(math.ceil(3 * each), side - 1) + 1 for each, side in zip(cells, maps.shape[1:], strict=True)]
    return gaussian_blur(maps[:, None], sizes[::-1], cells[::-1])[:, 0]


def image_score(anomaly_map, top_part=0.0):
    """Score of an image by its anomaly map.

    Parameters
    ----------
    anomaly_map : ndarray of shape (height, width)
    top_part : float
        Part of the pixels, in [0, 1], of which one at least is taken.

    Returns
    -------
    float
        Mean of the highest `top_part` of the pixels; 0: their maximum.
    """
    n = max(1, round(top_part * anomaly_map.size))
    if n == 1:
        return float(anomaly_map.max())
    return float(np.partition(anomaly_map, -n, axis=None)[-n:].mean(dtype=np.float64))


def upsample_and_average(branch_maps, shapes):
    """Bring the maps of all branches to the images' sizes, bilinearly with aligned corners, and average them.

    Parameters
    ----------
    branch_maps : dict of Branch to Tensor of shape (n_images, height, width)
    shapes : sequence of (int, int)
        Height and width of each image's map.

    Returns
    -------
    list of ndarray of shape (height_i, width_i)
        float32.
    """
    grids = {}
    for maps in branch_maps.values():
        grids.setdefault(maps.shape[1:], []).append(maps)
    # Upsampling is linear: the branches of one grid are added before it.
    sums = [torch.stack(group).sum(0) / len(branch_maps) for group in grids.values()]  # (n_images, height, width) each
    averages = []
    for i, shape in enumerate(shapes):
        average = torch.zeros(tuple(shape))
        for maps in sums:
            average += torch.nn.functional.interpolate(
                maps[i][None, None], size=tuple(shape), mode="bilinear", align_corners=True
            )[0, 0]  # (height_i, width_i)
        averages.append(average.numpy())
    return averages
