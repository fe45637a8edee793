"""Prototypes learned once: runs that train alike share them, and a run that was stopped goes on with its next branch."""

import functools
import hashlib
import json
import time
import warnings
from pathlib import Path

import torch

from pradot import block_cost, cost, precision, prototypes, scoring, sending, sparse_kernel, starts, streaming, transport
from pradot.cost import CostScale
from pradot.errors import PradotError
from pradot.files import alone, check_folder
from pradot.sealed import load_sealed, save_sealed

LEARNS = (block_cost, cost, precision, prototypes, scoring, sending, sparse_kernel, starts, streaming, transport)
"""The modules that prototypes depend on."""


def learn_once(learner, features, validation, folder):
    """Fit a learner, or give it what an equal fit has left in a folder.

    Fits are equal when settings, images (the features' bytes), device, number of threads, torch and the code that learns are.

    Parameters
    ----------
    learner : PrototypeLearner
        Is fitted afterwards.
    features, validation
        As for `PrototypeLearner.fit`.
    folder : str or Path, optional
        Made if missing. Each fit adds one file of the size of its prototypes. None: nothing is looked for or left.

    Returns
    -------
    found : bool
        Whether nothing had to be learned.
    seconds : float
        What learning took, now or then; waiting for another process that learns the same does not count.
    """
    if folder is None:
        return False, _learn(learner, features, validation)
    check_folder(folder, "the feature cache (PRADOT_CACHE)")
    path = Path(folder) / f"prototypes-{_key(learner, features, validation)}.safetensors"
    with alone(path):  # runs in other processes that need the same prototypes wait for them
        seconds = _read(learner, path) if path.exists() else None
        if seconds is not None:
            return True, seconds
        seconds = _learn(learner, features, validation)
        _write(learner, path, seconds)
    return False, seconds


def _learn(learner, features, validation):
    start = time.perf_counter()
    learner.fit(features, validation)
    return time.perf_counter() - start


def _key(learner, features, validation):
    settings = {name: value for name, value in learner.get_params().items() if name not in ("progress", "device")}
    where = (str(learner.device), torch.get_num_threads(), torch.__version__)
    key = hashlib.sha256(repr((sorted(settings.items()), where, _code())).encode())
    for maps in (features, validation):
        key.update(repr(None if maps is None else tuple(maps.shape)).encode())
        if maps is not None:
            key.update(maps.detach().cpu().contiguous().numpy())
    return key.hexdigest()[:32]


@functools.cache
def _code():
    """SHA-256 of the code that learns: prototypes of another version are not this version's."""
    files = (Path(module.__file__) for module in LEARNS)
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _write(learner, path, seconds):
    learned = {
        "grid_shape": learner.grid_shape_,
        "scale": tuple(learner.scale_),
        "n_steps": learner.n_steps_,
        "best_step": learner.best_step_,
        "history": learner.history_,
        "notes": learner.notes_,
        "seconds": seconds,
    }
    tensors = {"prototypes": learner.prototypes_.cpu().contiguous(), "positions": learner.positions_.cpu().contiguous()}
    try:
        save_sealed(tensors, path, {"learned": json.dumps(learned)}, key=path.stem)
    except PradotError as error:  # they are learned: only another run has to do it again
        warnings.warn(f"learned prototypes are not kept: {error}", stacklevel=3)


def _read(learner, path):
    """Seconds that learning took then; None, with a warning, if the file is damaged."""
    try:
        tensors, metadata = load_sealed(path, learner.device, key=path.stem)
    except PradotError as error:
        warnings.warn(f"learned prototypes {path} cannot be read and are learned again: {error}", stacklevel=3)
        return None
    learned = json.loads(metadata["learned"])
    learner.prototypes_, learner.positions_ = tensors["prototypes"], tensors["positions"]
    learner.grid_shape_, learner.scale_ = tuple(learned["grid_shape"]), CostScale(*learned["scale"])
    learner.n_steps_, learner.best_step_ = learned["n_steps"], learned["best_step"]
    learner.history_, learner.notes_ = learned["history"], learned["notes"]
    return learned["seconds"]
