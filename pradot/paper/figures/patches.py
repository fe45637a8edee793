"""Patches of images: those nearest to prototypes, pictures made of them, how much of each a mask covers."""

import numpy as np
import torch

from pradot.images import read_image, resize_image


def square_pictures(images, size=224):
    """Images as the encoder sees them, for cutting patches: ndarray (n_images, size, size, 3) in [0, 1]."""
    return np.stack([resize_image(read_image(image), size).numpy().transpose(1, 2, 0) for image in images])


def nearest_patches(learner, features):
    """The training patch nearest to each prototype under the learner's own mixed cost.

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted.
    features : Tensor of shape (n_images, height, width, channels)
        Of the training images.

    Returns
    -------
    ndarray of shape (m, 2), int
        Image and cell (row by row) of every prototype's patch.
    """
    best = torch.full((len(learner.prototypes_),), torch.inf, device=learner.prototypes_.device)
    patches = torch.zeros(len(best), 2, dtype=torch.int64, device=best.device)
    for number, image in enumerate(features):
        M, _ = learner.cost(image[None], learner.scale_)  # (height * width, m)
        cost, cell = M.min(0)  # (m,)
        better = cost < best
        best[better] = cost[better]
        patches[better, 0], patches[better, 1] = number, cell[better]
    return patches.cpu().numpy()


def share_at_home(patches, grid_shape):
    """Part of the prototypes whose nearest patch lies in their own cell or one beside it, in [0, 1].

    Parameters
    ----------
    patches : ndarray of shape (m, 2)
        See `nearest_patches`.
    grid_shape : (int, int)
        Height and width of the feature map; prototypes lie on it in order, as often as fits.
    """
    height, width = grid_shape
    home = np.stack(np.unravel_index(np.arange(len(patches)) % (height * width), (height, width)), 1)  # (m, 2)
    cell = np.stack(np.unravel_index(patches[:, 1], (height, width)), 1)  # (m, 2)
    return float((np.abs(home - cell).max(1) <= 1).mean())


def patch_mosaic(pictures, patches, index):
    """A picture in which every cell shows the patch of one prototype.

    With ``index = learner.nearest(...).index[0]`` it is an image redrawn from its prototypes; with the prototypes of all
    positions in order it is a portrait of the prototypes themselves.

    Parameters
    ----------
    pictures : ndarray of shape (n_images, size, size, 3)
        The training images, see `square_pictures`.
    patches : ndarray of shape (m, 2)
        See `nearest_patches`.
    index : array of shape (height, width), int
        Which prototype each cell shows.

    Returns
    -------
    ndarray of shape (size_h, size_w, 3)
        Cells of ``size // height`` x ``size // width`` pixels.
    """
    index = np.asarray(index)
    (height, width), size = index.shape, pictures.shape[1]
    cell_h, cell_w = size // height, size // width
    mosaic = np.empty((height * cell_h, width * cell_w, 3), dtype=pictures.dtype)
    for i, j in np.ndindex(height, width):
        image, cell = patches[index[i, j]]
        top, left = cell // width * size // height, cell % width * size // width
        patch = pictures[image, top : top + cell_h, left : left + cell_w]
        mosaic[i * cell_h : (i + 1) * cell_h, j * cell_w : (j + 1) * cell_w] = patch
    return mosaic


def prototype_patches(learner, pictures, patches, n_layers=3):
    """Portrait of the prototypes: in every cell the training patch nearest to the prototype that lives there.

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted with a whole number of prototypes per position.
    pictures, patches
        See `patch_mosaic`.
    n_layers : int
        How many of the prototypes of each position to draw, one picture each.

    Returns
    -------
    list of ndarray of shape (size, size, 3)
    """
    cells = learner.grid_shape_[0] * learner.grid_shape_[1]
    n_layers = min(n_layers, len(patches) // cells)
    layers = np.arange(n_layers * cells).reshape(n_layers, *learner.grid_shape_)
    return [patch_mosaic(pictures, patches, layer) for layer in layers]


def redrawn_image(learner, features, pictures, patches):
    """A test image redrawn: every cell shows the training patch of its cheapest prototype.

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted.
    features : Tensor of shape (height, width, channels)
        Of the test image.
    pictures, patches
        See `patch_mosaic`.

    Returns
    -------
    ndarray of shape (size, size, 3)
    """
    return patch_mosaic(pictures, patches, learner.nearest(features[None], learner.scale_).index[0].cpu())


def patch_fractions(masks, grid_shape):
    """Which part of each cell of the feature map a mask covers.

    Parameters
    ----------
    masks : sequence of bool ndarray of shape (height_i, width_i)
    grid_shape : (int, int)

    Returns
    -------
    ndarray of shape (n_images, height, width)
        In [0, 1].
    """
    pool = torch.nn.functional.adaptive_avg_pool2d
    return np.stack([pool(torch.from_numpy(mask).float()[None, None], tuple(grid_shape))[0, 0].numpy() for mask in masks])
