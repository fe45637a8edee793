"""Every experiment of the companion as data.

A preset says everything that changes a result except data, encoder and seed.
"""

from dataclasses import asdict, dataclass, replace

from pradot.detector import PAPER_BRANCHES, Branch
from pradot.errors import PradotError


@dataclass(frozen=True)
class Preset:
    """Settings of one experiment; what is not said here is the paper's (method.md)."""

    name: str  # as on the command line
    summary: str  # one sentence for people
    branches: tuple[Branch, ...]  # their maps are averaged
    scoring: str  # "image": scaled by each image's own largest costs; "training": by fixed ones
    evaluation_size: int | None  # side in pixels at which maps and masks are compared; None: the image's own size
    image_size: int = 224  # side in pixels of the encoder's input
    n_prototypes: int | float = 16  # per position
    reg: float = 0.01  # weight of the entropy
    n_iter: int = 100  # Sinkhorn iterations a step
    ema: float = 0.95  # what a step keeps of a prototype
    n_epochs: int = 50
    batch_size: int = 64  # images a step
    max_steps: int | None = None  # stop after so many steps
    positions: str = "fixed"  # prototypes stay on the grid
    solver: str = "kernel"  # "streamed": warm-started, stops at `tol`
    tol: float = 0.01  # marginal error at which the streamed solver stops
    precision: str = "full"  # of matrix products
    start: str = "uniform"  # prototypes' features before the first step; "images": those of training images
    validation_fraction: float = 0.2  # of the training images, to choose the best epoch

    @property
    def detector_settings(self):
        """What `pradot.Pradot` takes of it."""
        other = ("name", "summary", "evaluation_size", "image_size")
        return {name: value for name, value in asdict(self).items() if name not in other} | {"branches": self.branches}

    @property
    def is_shortened(self):
        """Whether steps or images a step were changed from the named preset."""
        return (self.max_steps, self.batch_size) != (PRESETS[self.name].max_steps, PRESETS[self.name].batch_size)

    @property
    def label(self):
        """Name for tables; a shortened run is never taken for the whole one."""
        return f"{self.name}, shortened" if self.is_shortened else self.name


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            "the paper's setting with its code's quirks: each image scaled by its own largest costs, evaluated at 224 x 224",
            branches=PAPER_BRANCHES,
            scoring="image",
            evaluation_size=224,
        ),
        Preset(
            "fast",
            "few steps from a good start: prototypes begin as patches of training images, transport is warm-started and stops "
            "at a tolerance; a fixed scale of the costs, evaluated at the images' own size",
            branches=PAPER_BRANCHES,
            scoring="training",
            evaluation_size=None,
            ema=0.8,
            batch_size=24,
            max_steps=6,
            solver="streamed",
            tol=0.05,
            precision="reduced",
            start="images",
        ),
    )
}


def get_preset(name, *, max_steps=None, batch_size=None):
    """The preset of a name, shortened if asked.

    Parameters
    ----------
    name : str
        One of `PRESETS`.
    max_steps, batch_size : int, optional
        Replace the preset's steps and images a step.

    Returns
    -------
    Preset

    Raises
    ------
    PradotError
        No such preset.
    """
    if name not in PRESETS:
        raise PradotError(f"unknown preset {name!r}; known are {', '.join(PRESETS)}")
    changes = {"max_steps": max_steps, "batch_size": batch_size}
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})
