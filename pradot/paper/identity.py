"""What makes a run the run it is, and its record found again: data, settings, encoder, seed."""

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path

from pradot.errors import PradotError
from pradot.paper.datasets import load_category
from pradot.paper.provenance import file_hashes
from pradot.paper.records import slug
from pradot.paper.training import ALL_NORMAL, draw_training

ADDED = {
    "embedding": "scale",
    "spread_power": 0.0,
    "smoothing": 0.0,
    "top_part": 0.0,
    "image_spread_power": 0.0,
    "storage": "float32",
}
"""Settings that records did not have at first, and what they were then."""


def identify(dataset, root, category, preset, encoder, *, seed=0, out="runs", progress=False):
    """What makes a run the run it is, without running it; parameters as for `pradot.paper.runs.run`.

    Returns
    -------
    data : Category
        With the training images of this run, see `pradot.paper.training.draw_training`.
    identity : dict
        The part of its record that a run is found again by: data, settings, encoder, seed, training set.
    path : Path
        Where its record is, or will be.

    Raises
    ------
    PradotError
        The data cannot be read or are too few to be drawn from, or the encoder takes images of another size than the preset's.
    """
    if encoder.image_size != preset.image_size:
        raise PradotError(f"preset {preset.name} needs images of {preset.image_size} px; the encoder has {encoder.image_size}")
    data = draw_training(load_category(dataset, root, category), preset.training, seed)
    identity = {
        "dataset": dataset,
        "category": data.name,
        "data_sha256": _hash_data(data, progress),
        "preset": preset.name,
        "settings": recorded_settings(preset),
        "evaluation_size": preset.evaluation_size,
        "encoder": {
            "name": encoder.name,
            "weights_source": encoder.weights_source,
            "weights_sha256": encoder.weights_sha256,
            "image_size": encoder.image_size,
            # The same weights used in another way are another encoder.
            "mean": list(encoder.mean),
            "std": list(encoder.std),
            "layers_sha256": hashlib.sha256(repr(encoder.module).encode()).hexdigest(),
            # What the layers do not say, as a forward of one's own; few digits, for the last ones differ by number of threads.
            "signature": {str(scale): float(f"{vector.norm():.3g}") for scale, vector in encoder.signature.items()},
        },
        "seed": seed,
        # Absent where all images are learned from, as in the first records, so that those are still found.
        **({} if preset.training == ALL_NORMAL else {"training": asdict(preset.training)}),
    }
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:8]
    name = f"{slug(preset.label)}-{slug(encoder.name)}-seed{seed}-{digest}"
    path = Path(out) / dataset / data.name / f"{name}.json"
    return data, identity, path


def recorded_settings(preset):
    """The settings of a preset as its records have them.

    Parameters
    ----------
    preset : Preset or Rival

    Returns
    -------
    dict of str to value
        As JSON gives them back. Settings that are younger than the first records (`ADDED`) are absent where they change
        nothing, so that older records are still found.
    """
    settings = _plain(preset.detector_settings)
    return {name: value for name, value in settings.items() if name not in ADDED or value != ADDED[name]}


def _hash_data(data, progress):
    """SHA-256 over names and contents of all files of the category, so that other data under the same name is another run."""
    lines = (f"{name} {digest}\n" for name, digest in file_hashes(data, progress))
    return hashlib.sha256(os.fsencode("".join(lines))).hexdigest()


def _plain(settings):
    """Settings as JSON gives them back (tuples become lists)."""
    return json.loads(json.dumps(settings))
