"""Runs: fit, score and evaluate one category, and write one record that tables and figures read.

A record is a JSON file; the patch scores of its test images lie beside it in a safetensors file of the same name.
"""

import datetime
import json
import os
from collections import Counter
from functools import partial
from pathlib import Path

from pradot.branches import Branch
from pradot.errors import PradotError
from pradot.files import alone, check_folder, replacing
from pradot.images import image_shape
from pradot.memory import peak_memory_gb, reset_peak_memory
from pradot.paper.datasets import find_root
from pradot.paper.evaluation import METRICS, check_test, evaluate, maps_and_scores
from pradot.paper.identity import identify
from pradot.paper.presets import Rival
from pradot.paper.provenance import FILE_DIGITS, conditions, file_hashes, hash_file, other_code
from pradot.paper.records import RECORD_FORMAT, hash_record, read_record
from pradot.paper.training import drawn_features
from pradot.sealed import load_sealed, read_metadata, save_sealed
from pradot.stopwatch import Stopwatch


def run(dataset, root, category, preset, encoder, *, seed=0, out="runs", model=None, cache=None, again=False, progress=False):
    """Fit, score and evaluate one category, unless its record is there already.

    Parameters
    ----------
    dataset, root, category : str
        See `pradot.paper.datasets.load_category`.
    preset : Preset
        See `pradot.paper.presets.get_preset`.
    encoder : Encoder
        Its image size must be the preset's.
    seed : int
        Seed of the held-out images, the prototypes' start and the order of the images.
    out : str or Path
        Folder of records; this one is ``out/dataset/category/<preset>-<encoder>-seed<seed>-<hash>.json``.
    model : str or Path, optional
        Also save the fitted model in this folder, which must not lie in `out` (then a finished run is made again if the folder
        does not hold its very model).
    cache : str or Path, optional
        Folder of computed features, see `Encoder.features`, and of learned prototypes, see `pradot.learned.learn_once`.
    again : bool
        Make a finished run again, in the place of its record, if other code than today's made it, see
        `pradot.paper.provenance.other_code`.
    progress : bool
        Show progress bars.

    Returns
    -------
    record : dict
    path : Path
        Where it is written.
    is_new : bool
        False when a finished run was found.

    Raises
    ------
    PradotError
        A folder cannot be written, the data cannot be read, or a setting is out of range. Nothing is written then.
    """
    _check_folders(out, model)
    if model is not None and isinstance(preset, Rival):
        raise PradotError(f"{preset.name} is here to be compared with and cannot be saved: run it without --save-model")
    seconds = {}
    watch = Stopwatch(seconds)
    data, identity, path = identify(dataset, root, category, preset, encoder, seed=seed, out=out, progress=progress)
    watch.lap("loading")
    record = find_record(path, model, again)
    if record is not None:
        return record, path, False
    files = {name: digest[:FILE_DIGITS] for name, digest in file_hashes(data, progress)}
    # As all is before the long work.
    source = {"root": os.path.abspath(find_root(dataset, root)), "files": files, **conditions(encoder.device)}
    is_waited_for = f"{path} is being made by another process: waiting for it" if progress else None
    with alone(path, is_waited_for):
        record = find_record(path, model, again)  # the same run in another process may just have ended
        if record is not None:
            return record, path, False
        return _fit_and_evaluate(data, source, identity, path, preset, encoder, model, cache, progress, seconds), path, True


def find_record(path, model=None, again=False):
    """The record of a finished run, or None.

    A damaged one is none, nor is one whose model the folder `model` does not hold, nor with `again` one of other code.
    """
    try:
        record = read_record(path) if Path(path).exists() else None
    except PradotError:
        return None
    if record is not None and again and other_code(record):
        return None
    return record if record is None or model is None or _hash_model(model) == record.get("model_sha256") else None


def _fit_and_evaluate(data, source, identity, path, preset, encoder, model, cache, progress, seconds):
    reset_peak_memory()
    # What can be wrong with the data is found before the fit.
    all_shapes = [image_shape(path) for path in (*data.train, *data.validation)]
    paths = [sample.path for sample in data.test]
    shapes = [image_shape(path) for path in paths]
    found = check_test(data, shapes)
    features_of = partial(drawn_features, encoder, data=data, cache=cache, progress=progress, seconds=seconds)
    tested = features_of(paths) if paths else None
    if cache is not None:
        tested = None  # the cache keeps them until they are scored
    features = features_of(data.train)
    validation = None  # a part of the training images, unless the data set holds some out itself
    if data.validation:
        validation = encoder.features(data.validation, cache=cache, progress=progress, seconds=seconds)
    detector = preset.detector(encoder, identity["seed"], cache=cache, progress=progress)
    detector.fit_features(features, validation)
    del features, validation  # they need no memory while test images are scored
    notes = [*encoder.notes, *data.notes, *found, *detector.notes_]
    seconds["fit"] = sum(detector.seconds_.values())
    if detector.found_:
        notes.append(
            f"{len(detector.found_)} of {len(detector.learners_)} branches were learned before, by a run that trains alike or "
            "by a stopped one: the seconds of the fit are those of then, the peak of memory is without them"
        )
    results, branch_maps = {"metrics": dict.fromkeys(METRICS), "by_defect": {}, "images": []}, {}
    if data.test:
        if tested is None:
            tested = features_of(paths)
        watch = Stopwatch(seconds)
        branch_maps, score_maps, scores = maps_and_scores(detector, tested)
        all_shapes += shapes
        own = {"score_maps": score_maps, "scores": scores, "top_part": detector.top_part}
        results, found = evaluate(data, branch_maps, shapes, preset.evaluation_size, watch, progress, **own)
        notes += found

    record = {
        "format": RECORD_FORMAT,
        "label": preset.label,
        "variant": preset.variant,
        "quirks": preset.quirks,
        **identity,
        "model_sha256": None,
        **results,
        "counts": {**detector.n_images_, "test": len(data.test), "test_anomalous": int(data.labels.sum())},
        "image_shapes": dict(Counter(f"{height}x{width}" for height, width in all_shapes).most_common(10)),
        "branches": [
            {
                "scale": branch.scale,
                "alpha": branch.alpha,
                "steps": learner.n_steps_,
                "best_step": learner.best_step_,
                "marginal_error": learner.history_["marginal_error"][-1] if learner.n_steps_ else None,
                "iterations": sum(learner.history_["n_iter"]),
                "validation_loss": min(learner.history_["validation_loss"]),
                "cost_scale": list(learner.scale_),
            }
            for branch, learner in detector.learners_.items()
        ],
        "seconds": {part: round(seconds.get(part, 0.0), 3) for part in ("loading", "features", "fit", "scoring", "metrics")},
        "model_bytes": detector.model_bytes,
        "peak_memory_gb": round(peak_memory_gb(encoder.device), 3),
        "notes": notes,
        **source,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    if model is not None:
        with alone(Path(model) / "model"):  # runs of other settings may have the same folder
            detector.save(model)
            record["model_sha256"] = _hash_model(model)
    if branch_maps:
        path.unlink(missing_ok=True)  # of a run made again: a record never lies beside another's patch scores
        tensors = {f"{b.scale} {b.alpha}": m.contiguous() for b, m in branch_maps.items()}
        save_sealed(tensors, path.with_suffix(".safetensors"))
        record["patch_scores_sha256"] = hash_file(path.with_suffix(".safetensors"))
    record["sha256"] = hash_record(record)
    with replacing(path) as temporary:  # the record comes last: where it is, the run is whole
        temporary.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    return record


def read_branch_maps(path):
    """The patch scores of a record's test images, in the order of its ``images``.

    Parameters
    ----------
    path : str or Path
        The record.

    Returns
    -------
    dict of Branch to Tensor of shape (n_test, height, width)
        For `pradot.maps.upsample_and_average`.

    Raises
    ------
    PradotError
        They are not there, not as they were written, or those of another record.
    """
    record, path = read_record(path), Path(path).with_suffix(".safetensors")
    if not path.exists():
        raise PradotError(f"no patch scores at {path}: delete the record beside it and run again")
    try:
        tensors, _ = load_sealed(path)
        if record.get("patch_scores_sha256") not in (None, hash_file(path)):  # older records do not tell
            raise PradotError(f"{path} holds the patch scores of another run")
    except PradotError as error:
        raise PradotError(f"{error}: delete the record beside it and run again") from error
    branch_maps = {}
    for name, maps in tensors.items():
        scale, alpha = name.split()
        branch_maps[Branch(int(scale), float(alpha))] = maps
    return dict(sorted(branch_maps.items()))


def _hash_model(folder):
    """SHA-256 of a saved model's tensors, whose file holds its settings too; empty when the folder holds no whole model."""
    config, tensors = Path(folder) / "config.json", Path(folder) / "model.safetensors"
    try:
        is_whole = read_metadata(tensors)["config"] == config.read_text()  # else saving was cut between the two files
    except (OSError, KeyError, UnicodeDecodeError):
        return ""
    return hash_file(tensors) if is_whole else ""


def _check_folders(out, model):
    """Say before the long work what would keep its results from being written."""
    check_folder(out, "run records (--out)")
    if model is not None:
        check_folder(model, "the model (--save-model)")
    if model is not None and Path(model).resolve().is_relative_to(Path(out).resolve()):
        raise PradotError(
            f"the model's folder {model} (--save-model) lies in the folder of run records {out} (--out), where every *.json "
            "is read as a record: name one outside, such as models"
        )
