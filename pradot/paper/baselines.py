"""PatchCore and PaDiM on the same pooled embeddings, as rivals in the same run.

Both are fitted on `pradot.embedding.embed` at the grid of one scale and give patch scores as a `Pradot` of one branch does, so
that everything after them (upsampling, metrics, records) is the same.

- PatchCore: Roth et al., *Towards total recall in industrial anomaly detection*, CVPR 2022.
- PaDiM: Defard et al., *PaDiM: a patch distribution modeling framework*, ICPR workshops 2021.
"""

import time

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.neighbors import NearestNeighbors
from sklearn.random_projection import SparseRandomProjection

from pradot.branches import Branch
from pradot.cost import grid_positions
from pradot.embedding import embed
from pradot.errors import PradotError
from pradot.maps import smoothed
from pradot.progress import progress_bar

PROJECTED = 128  # dimensions in which the coreset is chosen, as in PatchCore's code
N_NEIGHBOURS = 9  # of the nearest patch in the bank, which weigh an image's score
SIGMA = 4 / 224  # of the Gaussian that smoothes maps, in sides of the image, as in PatchCore's and PaDiM's code


class Baseline(BaseEstimator):
    """What PatchCore and PaDiM share: they see pooled embeddings at one scale's grid.

    Attributes
    ----------
    n_images_ : dict of str to int
    seconds_ : dict of Branch to float
    notes_ : list of str
    """

    top_part = 0.0  # a method without an image score of its own takes the maximum of the map

    def fit_features(self, features, validation=None):
        """Fit on `Encoder.features` of normal images; nothing is to be chosen: `validation` images are used like others."""
        start = time.perf_counter()
        embeddings = embed(features, self.scale, "pooled")  # (n_images, height, width, channels)
        if validation is not None:
            embeddings = torch.cat([embeddings, embed(validation, self.scale, "pooled")])
        if not torch.isfinite(embeddings).all():
            raise PradotError("the features hold NaN or infinity: look at the images and at the encoder's weights")
        self._fit(embeddings)
        self.n_images_ = {"train": len(embeddings), "validation": 0}
        self.seconds_, self.found_, self.notes_, self.learners_ = {self._branch: time.perf_counter() - start}, [], [], {}
        return self

    def branch_maps_of_features(self, features):
        """Patch scores, as `Pradot.branch_maps_of_features`; smoothed by a Gaussian of 4 pixels at 224."""
        return self.maps_and_scores(features)[0]

    def maps_and_scores(self, features):
        """Patch scores, as `branch_maps_of_features`, and the method's own image scores (n_images,), or None without any."""
        embeddings = embed(features, self.scale, "pooled")  # (n_images, height, width, channels)
        maps, scores = zip(*(self._score(image) for image in embeddings.split(1)), strict=True)
        return {self._branch: smoothed(torch.cat(maps), SIGMA)}, None if None in scores else np.array(scores)

    @property
    def model_bytes(self):
        """Size of what was learnt."""
        return sum(array.nbytes for array in self._learnt())

    @property
    def _branch(self):
        return Branch(self.scale, 0.0)


class PatchCore(Baseline):
    """Distance of a patch to the nearest patch in a memory bank of normal ones.

    Parameters
    ----------
    part : float
        Of the training patches that the bank keeps, in (0, 1]: chosen greedily, each the one farthest from all before
        (k-centre), in a sparse random projection to 128 dimensions.
    position : float
        Weight of the position, appended to the embedding as ``position * (row, column)`` on the unit square. 0: none, as in
        PatchCore itself; above 0 a rival of local prototypes.
    scale : int
        At whose grid.
    random_state : int
    device : str
    progress : bool
    """

    def __init__(self, part=0.1, *, position=0.0, scale=2, random_state=0, device="cpu", progress=False):
        self.part = part
        self.position = position
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def _fit(self, embeddings):
        if not 0 < self.part <= 1:
            raise PradotError(f"part is {self.part}; it must lie in (0, 1]")
        patches = self._with_position(embeddings)  # (n_patches, channels or channels + 2)
        n = max(1, round(self.part * len(patches)))
        chosen = k_centres(patches, n, random_state=self.random_state, device=self.device, progress=self.progress)
        self.bank_ = patches[chosen].clone()  # (n, channels or channels + 2)
        self._search = NearestNeighbors(n_neighbors=1, algorithm="brute").fit(self.bank_.numpy())

    def _score(self, image):
        """Patch scores of one image (1, height, width), and its own score with PatchCore's weight.

        ``(1 - exp(d) / sum_b exp(d_b)) d``: d is the largest distance of the image's patches to the bank, ``d_b`` that patch's
        distances to the 9 patches of the bank around its nearest one.
        """
        patches = self._with_position(image).numpy()  # (height * width, channels or channels + 2)
        distance, nearest = self._search.kneighbors(patches)  # (height * width, 1) both
        at = distance[:, 0].argmax()
        around = self._search.kneighbors(
            self.bank_[nearest[at]].numpy(), n_neighbors=min(N_NEIGHBOURS, len(self.bank_)), return_distance=False
        )
        others = np.linalg.norm(patches[at] - self.bank_[around[0]].numpy(), axis=1)  # (n_neighbours,)
        weight = 1 - np.exp(distance[at, 0] - others.max()) / np.exp(others - others.max()).sum()
        return torch.from_numpy(distance.astype(np.float32)).view(image.shape[:3]), weight * distance[at, 0]

    def _with_position(self, embeddings):
        """Patches one after the other, their positions appended if these count: (n_patches, channels or channels + 2)."""
        patches = embeddings.flatten(0, 2)
        if not self.position:
            return patches
        grid = self.position * grid_positions(*embeddings.shape[1:3])  # (height * width, 2)
        return torch.cat([patches, grid.repeat(len(embeddings), 1)], 1)

    def _learnt(self):
        return [self.bank_.numpy()]


class PaDiM(Baseline):
    """Mahalanobis distance of a patch to the Gaussian of normal patches at its position.

    Parameters
    ----------
    n_channels : int
        Channels that are kept, drawn at random, as in PaDiM (100 with ResNet-18); all where there are no more.
    epsilon : float
        Added to the variances, above 0.
    scale : int
        At whose grid.
    random_state : int
    """

    def __init__(self, n_channels=100, *, epsilon=0.01, scale=2, random_state=0, device="cpu", progress=False):
        self.n_channels = n_channels
        self.epsilon = epsilon
        self.scale = scale
        self.random_state = random_state
        self.device = device
        self.progress = progress

    def _fit(self, embeddings):
        if self.n_channels < 1:
            raise PradotError(f"n_channels is {self.n_channels}; it must be at least 1")
        if not self.epsilon > 0:
            raise PradotError(f"epsilon is {self.epsilon}; it must be above 0")
        n_images, channels = len(embeddings), embeddings.shape[3]
        generator = torch.Generator().manual_seed(self.random_state)
        self.kept_ = torch.randperm(channels, generator=generator)[: self.n_channels].sort().values  # (kept,)
        x = embeddings[..., self.kept_].flatten(1, 2)  # (n_images, height * width, kept)
        self.mean_ = x.mean(0)  # (height * width, kept)
        self.whitening_ = torch.empty(*self.mean_.shape, len(self.kept_))  # (height * width, kept, kept)
        identity = self.epsilon * torch.eye(len(self.kept_), dtype=torch.float64)
        for cell in range(len(self.mean_)):
            centred = (x[:, cell] - self.mean_[cell]).double()  # (n_images, kept)
            covariance = centred.T @ centred / max(1, n_images - 1) + identity
            # |L^-1 (x - mean)| is the distance when L L^T is the covariance.
            self.whitening_[cell] = torch.linalg.inv(torch.linalg.cholesky(covariance))

    def _score(self, image):
        """Patch scores of one image (1, height, width), and no score of its own."""
        x = image[..., self.kept_].flatten(1, 2) - self.mean_  # (1, height * width, kept)
        distance = torch.einsum("pjk,npk->npj", self.whitening_, x).norm(dim=2)  # (1, height * width)
        return distance.view(image.shape[:3]), None

    def _learnt(self):
        return [self.mean_.numpy(), self.whitening_.numpy()]


def k_centres(x, n, *, random_state=0, device="cpu", progress=False):
    """Greedy k-centre: a random vector, then always the one farthest from all chosen before.

    Parameters
    ----------
    x : Tensor of shape (n_vectors, channels)
    n : int
        How many to choose, at most n_vectors.
    random_state : int
        Of the first vector, and of the projection that vectors of more than 128 channels are compared in.
    device : str
    progress : bool

    Returns
    -------
    Tensor of shape (n,), int64
        Their indices, in the order of their choice.
    """
    first = np.random.default_rng(random_state).integers(len(x))
    if x.shape[1] > PROJECTED:
        projection = SparseRandomProjection(PROJECTED, random_state=random_state, dense_output=True)
        x = torch.from_numpy(projection.fit_transform(x.numpy()).astype(np.float32))  # (n_vectors, 128)
    x = x.to(device)
    lengths, nearest = x.square().sum(1), torch.full((len(x),), torch.inf, device=device)  # (n_vectors,) both
    chosen = torch.empty(n, dtype=torch.int64, device=device)
    chosen[0] = int(first)
    with progress_bar(n, "coreset", "patch", progress) as bar:
        for k in range(1, n):
            at = chosen[k - 1]
            distance = torch.addmv(lengths, x, x[at], alpha=-2).add_(lengths[at])  # (n_vectors,), squared
            nearest = torch.minimum(nearest, distance, out=nearest)
            nearest[at] = -torch.inf  # rounding must not choose it twice
            chosen[k] = nearest.argmax()
            bar.update()
        bar.update()
    return chosen.cpu()
