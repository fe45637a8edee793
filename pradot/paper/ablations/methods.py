"""Ablations that compare whole methods, or what they are trained on."""

from dataclasses import replace

from pradot.paper.ablations.rows import Ablation, Row
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


def _trained(label, preset, group, value, change, **drawn):
    """A row whose training images are drawn in another way."""
    variant = ", ".join(filter(None, [preset.variant, change]))
    return Row(label, replace(preset, variant=variant, training=TrainingSet(**drawn)), value=value, group=group)


def few(name, base):
    """The base and PatchCore, fitted on few images of those that there are."""
    rows, bank, per_position = [], RIVALS["patchcore-10"], f"{base.n_prototypes:g} per position"
    for n in SHOTS:
        images, part = f"{n} image{'s' if n > 1 else ''}", min(1.0, base.n_prototypes / n)
        as_large = replace(bank, variant=f"bank of {per_position}", parameters=(("part", part),))
        for group, method in ((base.label, base), (f"PatchCore {per_position}", as_large), ("PatchCore 10 %", bank)):
            rows.append(_trained(f"{group}, {images}", method, group, n, images, n_images=n))
    everything = [Row(f"{group}, all images", method, group=group) for group, method in ((base.label, base), (group, bank))]
    return Ablation(
        name,
        "How few normal images are enough? PatchCore stands beside, its bank as many patches a position as there are "
        "prototypes, and 10 %; images are drawn by the seed.",
        "normal images",
        base,
        (*rows, *everything),
        logarithmic=True,
    )


def contaminated(name, base):
    """The base and PatchCore, fitted without and with defects among the training images."""
    rows = []
    for method in (base, RIVALS["patchcore-1"], RIVALS["patchcore-10"]):
        for part in CONTAMINATIONS:
            percent, drawn = f"{100 * part:g} %", {"contamination": part, "held_back": max(CONTAMINATIONS)}
            label, change = f"{method.label}, {percent}", f"{percent} defects"
            rows.append(_trained(label, method, method.label, 100 * part, change, **drawn))
    return Ablation(
        name,
        "What do defects among the training images cost? Defective test images are drawn by the seed, the same for all rows; "
        "they are no test images, and join the normal ones as the given part of these.",
        "defects among the normal images, %",
        base,
        tuple(rows),
    )
