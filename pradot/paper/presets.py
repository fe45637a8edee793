"""Every experiment of the companion as data.

A preset says everything that changes a result except data, encoder and seed. What an ablation changes in one is in
`pradot.paper.ablations`.
"""

from dataclasses import asdict, dataclass, replace

from pradot.branches import PAPER_BRANCHES, Branch
from pradot.detector import Pradot
from pradot.errors import PradotError
from pradot.paper.baselines import SIGMA, PaDiM, PatchCore
from pradot.paper.training import ALL_NORMAL, TrainingSet

QUIRKS = {
    "scale of the image": "each test image is scored with costs divided by its own largest ones, not by those of training: its "
    "scores depend on everything else in it",
    "scale of the batch": "in training costs are divided by the largest ones of each batch",
    "fixed iterations": "Sinkhorn stops after a fixed number of iterations, converged or not",
    "dropped batches": "images that do not fill a last batch are left out of the epoch",
    "evaluated at 224": "maps and masks are compared at 224 x 224, masks resized by nearest neighbour, not at the images' size",
}
"""What the official code does that one might not expect (method.md), by name. One thing is not taken over: from a set smaller
than a batch the official code learns nothing; here it trains on one smaller batch a step, which the record's notes say."""


@dataclass(frozen=True)
class Preset:
    """Settings of one experiment; what is not said here is the paper's (method.md)."""

    name: str  # as on the command line
    summary: str  # one sentence for people
    branches: tuple[Branch, ...]  # their maps are averaged
    scoring: str  # "image": scaled by each image's own largest costs; "training": by fixed ones
    evaluation_size: int | None  # side in pixels at which maps and masks are compared; None: the image's own size
    embedding: str = "scale"  # what a branch sees: the map of its scale, or all scales "joined" at its grid, or "pooled"
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
    start: str = "uniform"  # prototypes' features before the first step, see `pradot.PrototypeLearner`
    assignment: str = "nearest"  # a patch's score: its cheapest prototype's cost; "transport": what it pays when transported
    spread_power: float = 0.0  # how much the spread of normal patches around a prototype counts
    smoothing: float = 0.0  # of patch scores by a Gaussian, in sides of the image
    top_part: float = 0.0  # of an image's map, whose mean is the image's score; 0: the maximum
    image_spread_power: float = 0.0  # how much the spread counts in a second map, for the image's score; 0: there is none
    storage: str = "float32"  # numbers that prototypes are kept in
    validation_fraction: float = 0.2  # of the training images, to choose the best epoch
    training: TrainingSet = ALL_NORMAL  # which images of a category are learned from
    variant: str = ""  # what an ablation changed, such as "alpha 0.5"

    @property
    def detector_settings(self):
        """What `pradot.Pradot` takes of it."""
        other = ("name", "summary", "evaluation_size", "image_size", "training", "variant")
        return {name: value for name, value in asdict(self).items() if name not in other} | {"branches": self.branches}

    def detector(self, encoder, seed=0, *, cache=None, progress=False):
        """A `pradot.Pradot` with these settings."""
        return Pradot(encoder, random_state=seed, cache=cache, progress=progress, **self.detector_settings)

    @property
    def encoder_scales(self):
        """Scales to make the encoder with: 2 and 3 always, so that presets share one set of computed features."""
        own = {branch.scale for branch in self.branches}
        return own | {2, 3} if max(own) <= 3 else own  # beyond are the blocks of a ViT

    @property
    def quirks(self):
        """Which of the official code's `QUIRKS` these settings have."""
        streamed = self.solver == "streamed"
        found = {
            "scale of the image": self.scoring == "image",
            "scale of the batch": not streamed,
            "fixed iterations": not streamed,
            "dropped batches": True,
            "evaluated at 224": self.evaluation_size == 224,
        }
        return [name for name in QUIRKS if found[name]]

    @property
    def is_shortened(self):
        """Whether steps or images a step were changed from the named preset (no step at all is another experiment)."""
        whole = PRESETS[self.name]
        return self.max_steps not in (whole.max_steps, 0) or self.batch_size != whole.batch_size

    @property
    def label(self):
        """Name for tables; no variant, no shortened run and no other training set is ever taken for the preset itself."""
        return ", ".join(filter(None, [self.name, self.variant, self.training.label, "shortened" if self.is_shortened else ""]))


@dataclass(frozen=True)
class Rival:
    """Another method as an experiment: what runs and tables need of a `Preset`."""

    name: str
    summary: str
    method: type  # one of `pradot.paper.baselines`
    parameters: tuple[tuple[str, float], ...] = ()  # of the method
    image_size: int = 224
    evaluation_size: int | None = None
    training: TrainingSet = ALL_NORMAL
    variant: str = ""

    def detector(self, encoder, seed=0, *, cache=None, progress=False):
        """The method with these settings; it keeps nothing in the cache."""
        return self.method(random_state=seed, device=encoder.device, progress=progress, **dict(self.parameters))

    @property
    def detector_settings(self):
        """What tells it from others in a record."""
        settings = self.method(**dict(self.parameters)).get_params()
        own = {name: value for name, value in settings.items() if name not in ("random_state", "device", "progress")}
        return {"method": self.method.__name__} | own | {"smoothing": SIGMA}

    @property
    def encoder_scales(self):
        """Those that are joined."""
        return {2, 3}

    @property
    def quirks(self):
        """None of the official PRADOT code's."""
        return []

    @property
    def label(self):
        """Name for tables; no variant and no other training set is ever taken for the method itself."""
        return ", ".join(filter(None, [self.name, self.variant, self.training.label]))


FAST = Preset(
    "fast",
    "few steps from a good start: prototypes begin as patches of training images, spread out at each place; transport "
    "is warm-started and stops at a tolerance; a fixed scale of the costs, evaluated at the images' own size",
    branches=PAPER_BRANCHES,
    scoring="training",
    evaluation_size=None,
    ema=0.8,
    batch_size=24,
    max_steps=8,
    solver="streamed",
    tol=0.05,
    precision="reduced",
    start="spread",
)

PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "paper",
            "the paper's setting with its code's quirks: each image scaled by its own largest costs, evaluated at 224 x 224; "
            "but a set smaller than a batch trains on one smaller batch",
            branches=PAPER_BRANCHES,
            scoring="image",
            evaluation_size=224,
        ),
        Preset(
            "sound",
            "trained as in the paper; costs have a fixed scale, that of training, and images are evaluated at their own size",
            branches=PAPER_BRANCHES,
            scoring="training",
            evaluation_size=None,
        ),
        FAST,
        replace(
            FAST,
            name="best",
            summary="beyond the paper: both scales joined at the 28 x 28 grid, 4 local prototypes per position in half "
            "precision; scores beside the spread of normal patches, smoothed; an image's is the mean of the top 2 % of a "
            "second map, which the spread counts more in; trained and evaluated as fast is",
            branches=(Branch(2, 0.3),),
            embedding="joined",
            n_prototypes=4,
            spread_power=0.375,
            smoothing=4 / 224,  # PatchCore's
            top_part=0.02,
            image_spread_power=1.0,
            storage="float16",
        ),
    )
}


RIVALS = {
    rival.name: rival
    for rival in (
        Rival("patchcore-1", "PatchCore that keeps 1 % of the patches", PatchCore, (("part", 0.01),)),
        Rival("patchcore-10", "PatchCore that keeps 10 % of the patches", PatchCore, (("part", 0.1),)),
        Rival(
            "patchcore-10-position",
            "PatchCore that keeps 10 % of the patches and knows where they were",
            PatchCore,
            (("part", 0.1), ("position", 1.0)),
        ),
        Rival("padim", "PaDiM: a Gaussian at each position", PaDiM),
    )
}


def get_preset(name, *, max_steps=None, batch_size=None):
    """The preset of a name, shortened if asked.

    Parameters
    ----------
    name : str
        One of `PRESETS` or `RIVALS`.
    max_steps, batch_size : int, optional
        Replace the preset's steps and images a step; rivals have none.

    Returns
    -------
    Preset or Rival

    Raises
    ------
    PradotError
        No such preset.
    """
    if name in RIVALS:
        return RIVALS[name]
    if name not in PRESETS:
        raise PradotError(f"unknown preset {name!r}; known are {', '.join([*PRESETS, *RIVALS])}")
    changes = {"max_steps": max_steps, "batch_size": batch_size}
    return replace(PRESETS[name], **{key: value for key, value in changes.items() if value is not None})
