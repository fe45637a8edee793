"""Where prototypes start: features of training patches, spread out or averaged in clusters."""

import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

from pradot.cost import grid_positions, unit_vectors
from pradot.progress import progress_bar

STARTS = ("uniform", "images", "spread", "kmeans", "kmeans_global")


def start_prototypes(start, features, n_prototypes, generator, progress=False):
    """Prototypes before the first step, on the CPU.

    Parameters
    ----------
    start : str
        One of `STARTS`, see `PrototypeLearner`.
    features : Tensor of shape (n_images, height, width, channels)
        Feature maps of the training images.
    n_prototypes : int or float
        Prototypes per position, or 1/4, 1/9, ... for a coarser grid.
    generator : torch.Generator
        On the CPU: the same draw on every device.
    progress : bool
        Show a progress bar where it takes long.

    Returns
    -------
    prototypes : Tensor of shape (m, channels)
        Their features.
    positions : Tensor of shape (m, 2)
        Their (row, column) on the unit square.
    """
    positions = start_positions(features.shape[1:3], n_prototypes)  # (m, 2)
    if start == "uniform":
        return torch.rand(len(positions), features.shape[3], generator=generator), positions
    if start == "kmeans_global":
        return _global_means(features, len(positions), generator, progress)
    layers = features.flatten(1, 2)  # (n_images, height * width, channels)
    cells = _thinned(torch.arange(layers.shape[1])[:, None], features.shape[1:3], n_prototypes)[:, 0]  # (m,)
    if start == "images":
        return _of_random_images(layers, cells, n_prototypes, generator), positions
    cells, n = cells.unique(), max(1, int(n_prototypes))  # (n_places,)
    if start == "kmeans":
        return _local_means(layers, cells, n, generator, progress), positions
    chosen = spread_out(layers, cells, n)  # (n, n_places)
    return layers[chosen, cells].flatten(0, 1), positions  # (m, channels)


def start_positions(grid_shape, n_prototypes):
    """The grid (height, width), repeated or thinned out: (m, 2)."""
    return _thinned(grid_positions(*grid_shape), grid_shape, n_prototypes)


def _thinned(of_cells, grid_shape, n_prototypes):
    """What belongs to the cells (height * width, k) for the prototypes: repeated or thinned out, (m, k)."""
    if n_prototypes >= 1:
        return of_cells.repeat(int(n_prototypes), 1)
    every = round(n_prototypes**-0.5)
    return of_cells.view(*grid_shape, -1)[::every, ::every].flatten(0, 1)


def _of_random_images(layers, cells, n_prototypes, generator):
    """Features (n_images, height * width, channels) of random images at the prototypes' cells (m,): (m, channels)."""
    if n_prototypes < 1:
        return layers[torch.randint(len(layers), (1,), generator=generator), cells].clone()
    order = torch.randperm(len(layers), generator=generator)
    order = order.repeat(-(-int(n_prototypes) // len(order)))[: int(n_prototypes)]
    return layers[order].flatten(0, 1)  # (m, channels)


def _local_means(layers, cells, n, generator, progress):
    """k-means at some cells of (n_images, height * width, channels): (n * n_places, channels), as positions are repeated."""
    means = []
    with progress_bar(len(cells), "k-means", "place", progress) as bar:
        for cell in cells:
            means.append(cluster_means(layers[:, cell], layers[:, cell], n, generator))  # (n, channels)
            bar.update()
    return torch.stack(means, 1).flatten(0, 1)  # (m, channels)


def _global_means(features, m, generator, progress):
    """k-means of all patches: mean features (m, channels) and mean positions (m, 2) of its clusters."""
    x = features.flatten(0, 2)  # (n_images * height * width, channels)
    places = grid_positions(*features.shape[1:3]).repeat(len(features), 1)  # (n_images * height * width, 2)
    with progress_bar(1, "k-means of all patches", "fit", progress) as bar:
        means = cluster_means(x, torch.cat([x, places], 1), m, generator)  # (m, channels + 2)
        bar.update()
    return means[:, :-2], means[:, -2:]


def spread_out(layers, cells, n):
    """Which images are farthest from each other at each place.

    Of (n_images, height * width, channels) at `cells` (n_places,): indices of images, (n, n_places). The first is the nearest
    to the mean direction, the next ones have the largest cosine distance to the nearest chosen one. Fewer images are repeated.
    """
    n_different, chosen = min(n, len(layers)), []
    for part in cells.split(64):  # unit vectors of some places at a time
        x = unit_vectors(layers[:, part]).transpose(0, 1)  # (places, n_images, channels)
        places = torch.arange(len(part))
        pick = [torch.bmm(x, x.mean(1, keepdim=True).mT)[:, :, 0].argmax(1)]  # n_different of (places,)
        similar = x.new_full(x.shape[:2], -torch.inf)  # (places, n_images), to the nearest chosen one
        for _ in range(1, n_different):
            similar = torch.maximum(similar, torch.bmm(x, x[places, pick[-1], :, None])[:, :, 0])
            # Rounding may leave a chosen one less similar to itself than its twins are.
            similar[places, pick[-1]] = torch.inf
            pick.append(similar.argmin(1))
        chosen.append(torch.stack(pick))  # (n_different, places)
    return torch.cat(chosen, 1)[torch.arange(n) % n_different]


def cluster_means(x, values, k, generator):
    """Means of `values` (n, v) over the k clusters of the unit vectors of `x` (n, channels); (k, v).

    With fewer vectors than clusters, each is a cluster and they are repeated.
    """
    if len(x) <= k:
        return values[torch.arange(k) % len(x)]
    unit = unit_vectors(x).numpy()  # the cost is a cosine distance
    seed = int(torch.randint(2**31 - 1, (1,), generator=generator))
    # k-means++ looks at all vectors for each of its centres: too long for thousands of them.
    many = {"init": "random", "batch_size": 3 * k, "max_iter": 20} if k > 256 else {}
    kmeans = (MiniBatchKMeans if many else KMeans)(k, n_init=1, random_state=seed, **many)
    labels = torch.from_numpy(kmeans.fit_predict(unit)).long()  # (n,)
    counts = labels.bincount(minlength=k)[:, None]  # (k, 1)
    means = values.new_zeros(k, values.shape[1]).index_add_(0, labels, values) / counts.clamp(min=1)  # (k, v)
    # Nothing is left of a cluster when vectors are equal: one of them stands for it.
    return torch.where(counts > 0, means, values[torch.arange(k) % len(x)])
