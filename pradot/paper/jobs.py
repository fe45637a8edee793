"""Jobs: the independent runs that a benchmark or an ablation is made of."""

import os
from dataclasses import dataclass, replace

from pradot.encoder import default_encoder
from pradot.errors import PradotError
from pradot.paper.datasets import list_categories
from pradot.paper.presets import Preset
from pradot.weights import PAPER_ENCODER


@dataclass(frozen=True)
class Job:
    """One run: everything that a process on another machine needs to make it."""

    dataset: str
    root: str  # absolute, as seen from every machine
    category: str
    preset: Preset
    seed: int
    encoder: str  # as for `pradot.encoder.make_encoder`, but not "auto", which may be another one elsewhere
    weights: str | None = None  # absolute
    device: str = "auto"  # settled by the process that does the job
    note: str | None = None  # why the encoder is not the one asked for

    def __str__(self):
        return f"{self.dataset} {self.category}, {self.preset.label}, {self.encoder.rpartition('/')[2]}, seed {self.seed}"


def list_jobs(dataset, root, *, presets, categories=None, n_seeds=1, encoder="auto", weights=None, device="auto"):
    """Every preset with every seed on every category, in this order: neighbours work on different categories.

    Parameters
    ----------
    dataset, root : str
        See `pradot.paper.datasets.load_category`.
    presets : sequence of Preset
    categories : sequence of str, optional
        All that are found by default.
    n_seeds : int
        Seeds are 0 to ``n_seeds - 1``.
    encoder, weights, device : str
        See `pradot.encoder.make_encoder`.

    Returns
    -------
    list of Job

    Raises
    ------
    PradotError
        No data set or category of a name.
    """
    found = list_categories(dataset, root)
    unknown = [name for name in categories or () if name not in found]
    if unknown:
        raise PradotError(f"no category {', '.join(unknown)} of {dataset} in {root}; found there: {', '.join(found)}")
    encoder, note = _settled(encoder, weights)
    common = {"weights": None if weights is None else os.path.abspath(weights), "device": device, "note": note}
    return [
        Job(dataset, os.path.abspath(root), category, preset, seed, encoder, **common)
        for preset in presets
        for seed in range(n_seeds)
        for category in categories or found
    ]


def list_ablation_jobs(ablation, dataset, root, *, encoder="auto", weights=None, **settings):
    """The jobs of each row of an ablation.

    Parameters
    ----------
    ablation : Ablation
        See `pradot.paper.ablations.get_ablation`.
    encoder, weights : str
        For the rows that have no encoder of their own, and for one of the same architecture if there are `weights`.
    dataset, root, **settings
        As for `list_jobs`.

    Returns
    -------
    dict of Row to list of Job
    """
    shared, note = _settled(encoder, weights)
    jobs = {}
    for row in ablation.rows:
        takes_shared = row.encoder is None or (weights is not None and _architecture(row.encoder) == _architecture(shared))
        own = {"encoder": shared, "weights": weights} if takes_shared else {"encoder": row.encoder}
        jobs[row] = list_jobs(dataset, root, presets=[row.preset], **own, **settings)
        if note and takes_shared:
            jobs[row] = [replace(job, note=note) for job in jobs[row]]
    return jobs


def _architecture(encoder):
    return encoder.partition("+")[0].partition(".")[0]


def _settled(encoder, weights):
    """An encoder's name that means the same on every machine, and why it is not the one asked for."""
    if encoder == "auto":
        return default_encoder() if weights is None else (PAPER_ENCODER, None)
    if ":" in encoder:
        file, _, function = encoder.rpartition(":")
        return f"{os.path.abspath(file)}:{function}", None
    return encoder, None
