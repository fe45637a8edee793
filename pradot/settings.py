"""What a `Pradot` can be set to, and whether it is."""

import torch

from pradot.branches import as_branches
from pradot.embedding import EMBEDDINGS
from pradot.errors import PradotError, is_number
from pradot.prototypes import PrototypeLearner

SCORINGS = ("image", "training")
ASSIGNMENTS = ("nearest", "transport")
STORAGES = {"float32": torch.float32, "float16": torch.float16}
# What a detector hands on to the learner of each branch.
LEARNER_SETTINGS = (
    *("n_prototypes", "reg", "n_iter", "ema", "n_epochs", "batch_size", "max_steps", "positions", "start"),
    *("solver", "tol", "precision", "keep_gb", "random_state", "progress"),
)


def learner_settings(detector):
    """Settings of a `Pradot` that its learners share, by name."""
    return {name: getattr(detector, name) for name in LEARNER_SETTINGS}


def measures_spreads(detector):
    """Whether scores of a `Pradot` depend on its prototypes' spreads."""
    return bool(detector.spread_power or detector.image_spread_power)


def check_settings(detector):
    """Raise PradotError if a setting of a `Pradot` is out of range; nothing has been computed yet."""
    branches = as_branches(detector.branches)
    if not branches or len(set(branches)) < len(branches):
        raise PradotError(f"branches must be one or more different (scale, alpha) pairs, not {branches}")
    if not (is_number(detector.validation_fraction) and 0 <= detector.validation_fraction < 1):
        raise PradotError(f"validation_fraction is {detector.validation_fraction!r}; it must lie in [0, 1)")
    for name in ("spread_power", "smoothing", "top_part", "image_spread_power"):
        value = getattr(detector, name)
        if not (is_number(value) and 0 <= value <= 1):
            raise PradotError(f"{name} is {value!r}; it must lie in [0, 1]")
    if measures_spreads(detector) and detector.assignment != "nearest":
        raise PradotError(
            "spread_power and image_spread_power need assignment 'nearest': a transported patch has no prototype of its own"
        )
    choices = {"embedding": EMBEDDINGS, "scoring": SCORINGS, "assignment": ASSIGNMENTS, "storage": STORAGES}
    for name, known in choices.items():
        if getattr(detector, name) not in tuple(known):
            raise PradotError(f"unknown {name} {getattr(detector, name)!r}: choose one of {', '.join(known)}")
    PrototypeLearner(branches[0].alpha, **learner_settings(detector)).check_settings()
