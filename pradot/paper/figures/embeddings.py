"""Feature vectors in pictures: as colours, as a plane, the oddest of an image."""

import numpy as np
import torch
from sklearn.manifold import TSNE

from pradot.cost import divisor, feature_cost, spatial_cost
from pradot.paper.figures.places import position_colours


def oddest_cell(features, margin=3):
    """The cell of a feature map that is least like the mean of its image, as (row, column).

    Parameters
    ----------
    features : Tensor of shape (height, width, channels)
    margin : int
        Cells at the border that do not count: there the network sees its own padding.

    Returns
    -------
    (int, int)
    """
    inner = features[margin:-margin, margin:-margin]
    cost = feature_cost(inner.flatten(0, 1), features.mean((0, 1))[None])[:, 0]  # (n_inner,)
    row, column = divmod(int(cost.argmax()), inner.shape[1])
    return row + margin, column + margin


def pca_colours(features, fitted_on):
    """Feature maps as colours: the three main directions of some other patches as red, green and blue.

    Parameters
    ----------
    features : Tensor of shape (n_images, height, width, channels)
    fitted_on : Tensor of shape (n, channels)
        Patches that say what the directions and their ranges are.

    Returns
    -------
    colours : ndarray of shape (n_images, height, width, 3)
        In [0, 1]: the 1st to the 99th percentile of `fitted_on`, cut beyond.
    explained : float
        Part of the variance of `fitted_on` along the three directions.
    """
    from sklearn.decomposition import PCA

    pca = PCA(3, random_state=0).fit(fitted_on.numpy())
    low, high = np.percentile(pca.transform(fitted_on.numpy()), (1, 99), axis=0)
    values = pca.transform(features.flatten(0, 2).numpy()).reshape(*features.shape[:3], 3)  # (n_images, height, width, 3)
    return np.clip((values - low) / (high - low), 0, 1), float(pca.explained_variance_ratio_.sum())


def mixed_distances(learner, x, positions):
    """Distances between some patches and all prototypes, each with each, under the learner's mixed cost.

    ``(1 - alpha) (1 - cos) / scale.feature + alpha ||p - q|| / scale.space``

    Parameters
    ----------
    learner : PrototypeLearner
        Fitted.
    x : Tensor of shape (n, channels)
        Embeddings.
    positions : Tensor of shape (n, 2)
        Theirs, on the unit square.

    Returns
    -------
    ndarray of shape (n + m, n + m)
        Symmetric, 0 on the diagonal; embeddings first, then prototypes.
    """
    vectors = torch.cat([x.to(learner.device), learner.prototypes_])  # (n + m, channels)
    places = torch.cat([positions.to(learner.device), learner.positions_])  # (n + m, 2)
    scale, alpha = learner.scale_, learner.alpha
    D = (1 - alpha) / divisor(scale.feature, vectors.dtype) * feature_cost(vectors, vectors)
    D += alpha / divisor(scale.space, places.dtype) * spatial_cost(places, places)
    D = (D + D.T) / 2  # rounding
    return D.fill_diagonal_(0).cpu().numpy()


def neighbour_map(ax, learner, x, positions, abnormal, *, n_prototypes=300, random_state=0, title=None):
    """t-SNE of patches and prototypes under the mixed distance, coloured by position.

    Parameters
    ----------
    ax : matplotlib Axes
    learner, x, positions
        See `mixed_distances`.
    abnormal : bool array of shape (n,)
        Drawn as crosses; the other embeddings are dots, prototypes diamonds.
    n_prototypes : int
        At most so many prototypes are drawn, chosen at random.
    random_state : int
        Seed of that choice and of t-SNE.
    title : str, optional

    Returns
    -------
    ndarray of shape (n,)
        Distance of every embedding to the nearest of *all* prototypes.
    """
    D, n = mixed_distances(learner, x, positions), len(x)
    prototypes = np.random.default_rng(random_state).permutation(np.arange(n, len(D)))[:n_prototypes]
    drawn = np.concatenate([np.arange(n), prototypes])
    tsne = TSNE(metric="precomputed", init="random", perplexity=30, max_iter=500, random_state=random_state)
    points = tsne.fit_transform(D[np.ix_(drawn, drawn)])  # (n + n_prototypes, 2)
    colours = position_colours(torch.cat([positions, learner.positions_.cpu()])[drawn])
    groups = {
        "prototype": (drawn >= n, {"marker": "D", "s": 16, "edgecolors": "0.25", "linewidths": 0.6}),
        "normal patch": (np.isin(drawn, np.flatnonzero(~abnormal)), {"marker": "o", "s": 12, "linewidths": 0}),
        "abnormal patch": (
            np.isin(drawn, np.flatnonzero(abnormal)),
            {"marker": "X", "s": 42, "edgecolors": "black", "linewidths": 0.8},
        ),
    }
    for name, (chosen, look) in groups.items():
        if chosen.any():
            ax.scatter(*points[chosen].T, c=colours[chosen], label=name, **look)
    ax.set(title=title or "", xticks=[], yticks=[], xlabel="t-SNE 1 (no unit)", ylabel="t-SNE 2 (no unit)")
    return D[:n, n:].min(1)
