"""Where prototypes start: features of training patches, spread out or averaged in clusters."""

import torch
from sklearn.cluster import KMeans, MiniBatchKMeans

from pradot.cost import unit_vectors

STARTS = ("uniform", "images", "spread", "kmeans", "kmeans_global")


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
