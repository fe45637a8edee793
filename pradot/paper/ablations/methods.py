"""Ablations that compare whole methods, or what they are trained on."""

from dataclasses import replace

from pradot.paper.ablations.rows import Ablation, Row, per_position
from pradot.paper.presets import PRESETS, RIVALS
from pradot.paper.training import TrainingSet

SHOTS = (1, 2, 4, 8, 16)
CONTAMINATIONS = (0.0, 0.05)
RUNGS = {
    "scoring": "a fixed scale of the costs",
    "evaluation_size": "evaluation at the images' own size",
    "solver": "warm-started transport",
    "tol": "a tolerance of 5 %",
    "precision": "bfloat16 where it is fast",
    "start": "a start at spread-out patches",
    "ema": "larger steps",
    "batch_size": "smaller batches",
    "max_steps": "8 steps",
    "embedding": "all scales joined",
    "branches": "one local branch at 28 x 28",
    "n_prototypes": "4 prototypes per position",
    "storage": "half precision",
    "spread_power": "scores beside the spread",
    "smoothing": "smoothed scores",
    "top_part": "an image's score by its top 2 %",
    "image_spread_power": "an image's score of a map of its own",
}
"""Settings in which the preset ``best`` differs from others, in the order of the ladder, and what they are called there."""


def ladder(name, base):
    """From the base to the preset ``best``, one setting a rung, each kept."""
    best, rows, rung = PRESETS["best"], [Row(base.label, base)], base
    for setting, text in RUNGS.items():
        value = getattr(best, setting)
        if getattr(rung, setting) != value:
            rung = replace(rung, **{setting: value})
            rows.append(Row(text, replace(rung, variant=f"up to {text}")))
    return Ablation(
        name, "What did each change from the base to the preset best bring?", "with, from here on", base, tuple(rows)
    )


def rivals(name, base):
    """The base, ``best`` and other methods."""
    return Ablation(
        name,
        "How do prototypes compare with a memory bank (PatchCore) and with Gaussians (PaDiM) on the same features?",
        "method",
        base,
        tuple(Row(preset.label, preset) for preset in dict.fromkeys([base, PRESETS["best"], *RIVALS.values()])),
    )


def _beside(base, name):
    """Another method, with images as the base's: lines of one plot have one size of images and of evaluation."""
    return replace(RIVALS[name], image_size=base.image_size, evaluation_size=base.evaluation_size)


def few(name, base):
    """The base and PatchCore, fitted on few images of those that there are."""
    bank, n = _beside(base, "patchcore-10"), base.n_prototypes
    as_large = f"patchcore, {per_position(n)} per position"
    rows = []
    for n_images in SHOTS:
        training = TrainingSet(n_images)
        other = {"variant": f"bank of {per_position(n)} per position", "parameters": (("part", min(1.0, n / n_images)),)}
        for group, method in {base.label: base, as_large: replace(bank, **other), bank.label: bank}.items():
            preset = replace(method, training=training)
            rows.append(Row(f"{group}, {training.label}", preset, value=n_images, group=group))
    rows += [Row(f"{method.label}, all images", method, group=method.label) for method in (base, bank)]
    return Ablation(
        name,
        "How few normal images are enough? They are drawn by the seed. PatchCore stands beside, with a bank of 10 % and with "
        "one of as many patches a position as a branch has prototypes.",
        "normal images",
        base,
        tuple(rows),
        logarithmic=True,
    )


def contaminated(name, base):
    """The base and PatchCore, fitted without and with defects among the training images."""
    rows = []
    for method in (base, _beside(base, "patchcore-1"), _beside(base, "patchcore-10")):
        for share in CONTAMINATIONS:
            preset = replace(method, training=TrainingSet(contamination=share, held_out=max(CONTAMINATIONS)))
            rows.append(Row(f"{method.label}, {100 * share:g} %", preset, value=100 * share, group=method.label))
    return Ablation(
        name,
        "What do defects among the training images cost? Defective test images, drawn by the seed, are left out of the test, "
        "the same for all rows, and become the given share of the training images.",
        "defects in training, %",
        base,
        tuple(rows),
    )
