"""Ablations of one setting, each as data, and all of them by name."""

from dataclasses import replace

from pradot.branches import Branch
from pradot.errors import PradotError
from pradot.paper.ablations import methods
from pradot.paper.ablations.rows import Ablation, Row, per_position
from pradot.paper.presets import PRESETS, Rival
from pradot.starts import STARTS

ALPHAS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9)
N_PROTOTYPES = (1 / 4, 1, 2, 4, 8, 16, 32)
REGS = (0.001, 0.003, 0.01, 0.03, 0.1)
SCALES = ((1,), (2,), (3,), (1, 2), (1, 3), (2, 3), (1, 2, 3))
SIZES = (224, 320, 448)
EMAS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.99)
ENCODERS = {
    "resnet18.a1_in1k": None,
    "resnet50.a1_in1k": None,
    "wide_resnet50_2.racm_in1k": None,
    "tf_efficientnet_lite0": None,
    "vit_small_patch14_dinov2.lvd142m": (7, 11),
    "vit_small_patch16_dinov3.lvd1689m": (7, 11),
}
"""Encoders, and for a ViT the blocks that take the place of the scales (of 12, counted from 0: at two thirds, and the last)."""


def get_ablation(name, base):
    """The ablation of a name, around a base setting.

    Parameters
    ----------
    name : str
        One of `ABLATIONS`.
    base : Preset
        What the rows have in common, shortened or not, see `pradot.paper.presets.get_preset`.

    Returns
    -------
    Ablation

    Raises
    ------
    PradotError
        No such ablation, or the base is another method.
    """
    if isinstance(base, Rival):
        raise PradotError(f"{base.name} has no settings to change: name a preset of PRADOT, {', '.join(PRESETS)}")
    if name not in ABLATIONS:
        raise PradotError(f"unknown ablation {name!r}; known are {', '.join(ABLATIONS)}")
    return ABLATIONS[name](name, base)


def _row(label, base, change, *, value=None, encoder=None, **settings):
    """A row; where nothing differs from the base it is the base itself, whose record it shares."""
    preset = replace(base, **settings)
    if preset != base:
        of_base = "" if "n_prototypes" in settings else base.variant
        preset = replace(preset, variant=", ".join(filter(None, [of_base, change])))
    return Row(label, preset, encoder, value)


def _branches(scales, alphas):
    return tuple(Branch(scale, alpha) for scale in scales for alpha in alphas)


def _scales(base):
    return sorted({branch.scale for branch in base.branches})


def _alphas(base):
    return sorted({branch.alpha for branch in base.branches})


def _alpha(name, base):
    rows = [
        _row(f"{alpha:g}", base, f"alpha {alpha:g}", value=alpha, branches=_branches(_scales(base), [alpha]))
        for alpha in ALPHAS
    ]
    both = " and ".join(f"{alpha:g}" for alpha in _alphas(base))
    return Ablation(
        name,
        "What is the place of a patch worth? 0: prototypes may serve anywhere; above: near their place.",
        "alpha",
        base,
        (*rows, Row(both, base)),
    )


def _n(name, base):
    names = [per_position(n) for n in N_PROTOTYPES]
    return Ablation(
        name,
        "How many prototypes per position are enough?",
        "prototypes per position",
        base,
        tuple(
            _row(text, base, f"{text} per position", value=n, n_prototypes=n)
            for text, n in zip(names, N_PROTOTYPES, strict=True)
        ),
        logarithmic=True,
    )


def _reg(name, base):
    # All rows in full precision, the base's too. The plan's relative error is about that of M / reg: with float32 it is below
    # 1e-4 at 0.001 (L1 error of the plan against float64 3e-5 on 784 x 784 drawn features), and `sinkhorn` refuses what is a
    # danger, below 1.2e-4 for costs up to 1. Products of bfloat16 numbers make twice the error at 0.001 that they make at 0.01.
    return Ablation(
        name,
        "How sharp should the transport be? A small reg pairs patches with prototypes, a large one spreads them.",
        "reg",
        base,
        tuple(_row(f"{reg:g}", base, f"reg {reg:g} in float32", value=reg, reg=reg, precision="full") for reg in REGS),
        logarithmic=True,
    )


def _scale(name, base):
    texts = [" + ".join(map(str, scales)) for scales in SCALES]
    return Ablation(
        name,
        "Which feature maps see the defects: fine ones (1), coarse ones (3), or several together?",
        "scales",
        base,
        tuple(
            _row(text, base, f"scale {text}", branches=_branches(scales, _alphas(base)))
            for text, scales in zip(texts, SCALES, strict=True)
        ),
    )


def _positions(name, base):
    texts = {"fixed": "on the grid", "learned": "learned"}
    return Ablation(
        name,
        "Should prototypes stay on the grid, or follow the positions that they receive?",
        "positions",
        base,
        tuple(_row(text, base, f"positions {text}", positions=positions) for positions, text in texts.items()),
    )


def _ema(name, base):
    return Ablation(
        name,
        "How much of a prototype should a step keep?",
        "EMA",
        base,
        tuple(_row(f"{ema:g}", base, f"ema {ema:g}", value=ema, ema=ema) for ema in EMAS),
    )


def _start(name, base):
    return Ablation(
        name,
        "Where should prototypes start: as noise, as patches of random or spread-out training images, or as k-means centres?",
        "start",
        base,
        tuple(_row(start, base, f"start {start}", start=start) for start in STARTS),
    )


def _encoder(name, base):
    return Ablation(
        name,
        "How much is due to the encoder?",
        "encoder",
        base,
        tuple(
            _row(
                encoder.partition(".")[0],
                base,
                f"blocks {', '.join(map(str, blocks))}" if blocks else "",
                encoder=encoder,
                branches=_branches(blocks, _alphas(base)) if blocks else base.branches,
            )
            for encoder, blocks in ENCODERS.items()
        ),
    )


def _assignment(name, base):
    texts = {"nearest": "cheapest prototype", "transport": "transport of the image"}
    return Ablation(
        name,
        "Should a patch be scored by its cheapest prototype, or by what it pays when its whole image is transported?",
        "score",
        base,
        tuple(_row(text, base, f"score by {text}", assignment=assignment) for assignment, text in texts.items()),
    )


def _kmeans(name, base):
    untrained = {
        "k-means per position": "kmeans",
        "k-means of all patches": "kmeans_global",
        "random patches": "images",
        "spread-out patches": "spread",
    }
    return Ablation(
        name,
        "What does optimal transport bring that k-means does not?",
        "prototypes",
        base,
        (
            Row("optimal transport", base),
            _row("k-means, then transport", base, "k-means, then transport", start="kmeans"),
            *(
                _row(f"{text} alone", base, f"{text} without transport", start=start, max_steps=0)
                for text, start in untrained.items()
            ),
        ),
    )


def _size(name, base):
    return Ablation(
        name,
        "What do larger images, and so finer grids, bring?",
        "side of the images, px",
        base,
        tuple(_row(str(side), base, f"images of {side} px", value=side, image_size=side) for side in SIZES),
        logarithmic=True,
    )


ABLATIONS = {
    "alpha": _alpha,
    "n": _n,
    "reg": _reg,
    "scale": _scale,
    "positions": _positions,
    "ema": _ema,
    "start": _start,
    "encoder": _encoder,
    "assignment": _assignment,
    "kmeans": _kmeans,
    "size": _size,
    "ladder": methods.ladder,
    "rivals": methods.rivals,
    "few": methods.few,
    "contaminated": methods.contaminated,
}
"""Functions of the name and the base preset, by name, in the order of notebooks 09 and, for the last four, 11."""
