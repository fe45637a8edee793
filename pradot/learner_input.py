"""Settings and feature maps of a learner, looked at before anything is computed of them."""

import math

import torch

from pradot.block_cost import PRECISIONS
from pradot.cost import check_alpha
from pradot.errors import PradotError, is_number, is_whole
from pradot.starts import STARTS
from pradot.transport import SOLVERS, check_iterations

POSITIONS = ("fixed", "learned")


def check_settings(learner):
    """Raise PradotError if a setting of a `PrototypeLearner` is out of range."""
    check_alpha(learner.alpha)
    check_iterations(learner.reg, learner.n_iter)
    n = learner.n_prototypes
    whole = is_number(n) and n >= 1 and float(n).is_integer()
    square_part = is_number(n) and 0 < n < 1 and math.isclose(round(n**-0.5) ** -2, n, rel_tol=1e-6)
    if not (whole or square_part):
        raise PradotError(f"n_prototypes is {n!r}; give a whole number >= 1, or 1/4, 1/9, 1/16, ... for a coarser grid")
    if not (is_number(learner.ema) and 0 <= learner.ema < 1):
        raise PradotError(f"ema is {learner.ema!r}; it must lie in [0, 1), or no prototype ever moves")
    choices = {
        "positions": POSITIONS,
        "start": STARTS,
        "precision": PRECISIONS,
        "solver": (*SOLVERS, "streamed"),
    }
    for name, known in choices.items():
        if getattr(learner, name) not in known:
            raise PradotError(f"unknown {name} {getattr(learner, name)!r}: choose one of {', '.join(known)}")
    if not (is_number(learner.tol) and 0 < learner.tol <= 2):
        raise PradotError(f"tol is {learner.tol!r}; the marginal error at which transport stops must lie in (0, 2]")
    if not (is_number(learner.keep_gb) and learner.keep_gb >= 0):
        raise PradotError(f"keep_gb is {learner.keep_gb!r}; it must be a number of GB, at least 0")
    for name, lowest in {"n_epochs": 1, "batch_size": 1, "max_steps": 0}.items():
        value = getattr(learner, name)
        if (value is not None or name != "max_steps") and not (is_whole(value) and lowest <= value < 2**63):
            raise PradotError(f"{name} is {value!r}; it must be a whole number, at least {lowest}")
    seed = learner.random_state
    if not (is_whole(seed) and 0 <= seed < 2**32):
        raise PradotError(f"random_state is {seed!r}; it must be a whole number from 0 to {2**32 - 1}")


def check_maps(features):
    """Raise PradotError unless feature maps are float32 numbers (n_images, height, width, channels) of at least one image."""
    if not isinstance(features, torch.Tensor) or features.dtype != torch.float32:
        kind = features.dtype if isinstance(features, torch.Tensor) else type(features).__name__
        raise PradotError(f"features must be a tensor of torch.float32, not {kind}: convert with torch.as_tensor(...).float()")
    if features.ndim != 4 or features.numel() == 0:
        raise PradotError(
            f"features must be (n_images, height, width, channels) of at least one image, not {tuple(features.shape)}"
        )


def check_training_maps(features):
    """As `check_maps`; raise PradotError too if the maps hold NaN or infinity."""
    check_maps(features)
    if not all(torch.isfinite(part).all() for part in features.split(64)):  # no second array as large
        raise PradotError("the features hold NaN or infinity: look at the images and at the encoder's weights")
