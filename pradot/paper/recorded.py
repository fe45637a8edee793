"""What a run record says, as what the run was made with: preset, data, encoder.

A record may come from anybody: it is data. No code that only a record names is run, and nothing is written where it says.
"""

import os
from collections import Counter

from pradot.branches import Branch
from pradot.encoder import Encoder, make_encoder
from pradot.errors import PradotError
from pradot.paper.baselines import PaDiM, PatchCore
from pradot.paper.datasets import DATASETS, data_folder, find_categories, find_root
from pradot.paper.identity import ADDED, recorded_settings
from pradot.paper.presets import PRESETS, RIVALS, Preset, Rival
from pradot.paper.provenance import FILE_DIGITS, file_hashes, made_by
from pradot.paper.records import read_record
from pradot.paper.training import TrainingSet

_KINDS = {
    **{"dataset": str, "category": str, "preset": str, "label": str, "settings": dict, "evaluation_size": int | None},
    **{"seed": int, "encoder": dict, "metrics": dict, "by_defect": dict, "versions": dict},
}
_ENCODER_KINDS = {"name": str, "weights_source": str, "weights_sha256": str, "image_size": int}


def repeatable_record(path):
    """A record that holds, of the right kind, all that a run is made from and compared by.

    Raises
    ------
    PradotError
        It does not.
    """
    record = read_record(path)
    odd = [name for name, kind in _KINDS.items() if not isinstance(record.get(name), kind)]
    if not odd:
        odd = [f"encoder: {name}" for name, kind in _ENCODER_KINDS.items() if not isinstance(record["encoder"].get(name), kind)]
        values = [value for _, value in all_metrics(record)]
        odd += [] if all(isinstance(value, float | int | None) for value in values) else ["metrics"]
    if odd:
        raise PradotError(f"{path} cannot be repeated: missing or damaged in it: {', '.join(odd)}")
    if record["dataset"] not in DATASETS:
        raise PradotError(f"{path} is of the data set {record['dataset']!r}; this version knows {', '.join(DATASETS)}")
    return record


def all_metrics(record):
    """Name and value of every metric of a record; those of single kinds of defects as ``scratch: image_auroc``."""
    yield from record["metrics"].items()
    for defect, of_one in record["by_defect"].items():
        for metric, value in of_one.items():
            yield f"{defect}: {metric}", value


def preset_of(record, path):
    """The experiment that a record's settings describe, whatever the preset of its name is today.

    Returns
    -------
    Preset or Rival

    Raises
    ------
    PradotError
        Today's version has other settings, or no preset of the name.
    """
    name, settings, is_rival = record["preset"], record["settings"], "method" in record["settings"]
    other = {"evaluation_size": record["evaluation_size"], "image_size": record["encoder"]["image_size"]}
    other["variant"] = str(record.get("variant", ""))
    try:
        other["training"], problems = TrainingSet(**record.get("training", {})), []
    except (PradotError, TypeError) as error:  # out of range, or of an unknown name
        problems = [f"training: {error}"]
    if is_rival:
        method = {"PatchCore": PatchCore, "PaDiM": PaDiM}.get(str(settings["method"]))
        known = recorded_settings(Rival(name, "", method)) if method else {}
    else:
        settings, known = ADDED | settings, PRESETS["paper"].detector_settings
    problems += [f"{key} is unknown" for key in settings if key not in known]
    problems += [f"{key} is missing" for key in known if key not in settings]
    problems += [f"{key} is {settings[key]!r}" for key in settings if key in known and not _is_alike(settings[key], known[key])]
    if name not in (RIVALS if is_rival else PRESETS):
        problems.append(f"preset {name!r} is unknown")
    if not problems:
        if is_rival:
            own = tuple((key, value) for key, value in settings.items() if key not in ("method", "smoothing"))
            preset = Rival(name, "", method, own, **other)
        else:
            branches = tuple(Branch(*branch) for branch in settings["branches"])
            preset = Preset(name, "", **settings | {"branches": branches}, **other)
        if recorded_settings(preset) == record["settings"]:
            return preset
        problems = ["they mean something else today"]
    raise PradotError(
        f"the settings in {path} do not fit this version ({'; '.join(problems[:3])}): repeat it with the version that made it, "
        f"{made_by(record)}"
    )


def find_data(record, root, path):
    """Where the data of a record are.

    Parameters
    ----------
    record : dict
    root : str or Path or None
        Where to look. None: where the record says that they were, if that is there, then where `find_root` looks.
    path : str or Path
        The record's, for errors.

    Returns
    -------
    root : Path
    category : str
        What the record's is called there: a folder of own images may have got another name.

    Raises
    ------
    PradotError
        They are not there.
    """
    dataset, category, recorded = record["dataset"], record["category"], record.get("root")
    places, looked = [root], []
    if root is None:
        places = [] if dataset == "folder" else [None]
        if isinstance(recorded, str) and dataset != "drawn":  # a set would be drawn, and so written, where the record says
            if os.path.exists(recorded):
                places = [recorded, *places]
            else:
                looked = [f"{recorded} (as recorded, but nothing is there)"]
    for place in places:
        try:
            base = find_root(dataset, place)
            found = list(find_categories(dataset, base))
        except PradotError:
            found = []
        if category in found or (dataset == "folder" and found):
            return base, category if category in found else found[0]
        looked.append(str(data_folder(place)))
    raise PradotError(
        f"the data of {path}, {dataset} {category}, are not found; looked in {' and '.join(looked) or 'no folder'}: name their "
        "folder with --root"
    )


def check_data(record, sha256, data, path):
    """Refuse data that are not those of a record.

    Parameters
    ----------
    record : dict
    sha256 : str
        Of the data that are there, see `pradot.paper.identity.identify`.
    data : pradot.paper.datasets.Category
    path : str or Path
        The record's.

    Raises
    ------
    PradotError
        They differ; it says in how many files if the record tells those.
    """
    if record.get("data_sha256", sha256) == sha256:
        return
    what = "names and contents have another hash; the record is too old to tell which files"
    if isinstance(record.get("files"), dict):
        then, now = record["files"], {name: digest[:FILE_DIGITS] for name, digest in file_hashes(data)}
        kinds = {name: "missing" for name in then if name not in now}
        kinds |= {name: "changed" if name in then else "new" for name in now if then.get(name) != now[name]}
        counts = ", ".join(f"{n} {kind}" for kind, n in Counter(kinds.values()).items())
        what = f"of {len(then)} files {counts}: {', '.join([*kinds][:3])}{', ...' if len(kinds) > 3 else ''}"
    raise PradotError(f"the data in {data.root} are not those of {path} ({what}): name the folder of those with --root")


def encoder_of(record, preset, path, *, encoder=None, weights=None, device=None):
    """The encoder of a record.

    Parameters
    ----------
    record : dict
    preset : Preset or Rival
    path : str or Path
        The record's.
    encoder : str or Encoder, optional
        None: the one that the record names, unless that is somebody's code.
    weights, device : str, optional
        See `pradot.encoder.make_encoder`; on the CPU by default if the record was made there.

    Returns
    -------
    Encoder

    Raises
    ------
    PradotError
        It cannot be had, or does not give the features that the record's gave.
    """
    then = record["encoder"]
    if encoder is None and (":" in then["name"] or then["weights_source"].startswith("made by")):
        raise PradotError(
            f"{path} was made with the encoder {then['name']} ({then['weights_source']}), which is code: it is run only if you "
            "name it (--encoder FILE.py:FUNCTION)"
        )
    if not isinstance(encoder, Encoder):
        device = device or ("cpu" if str(record.get("device")).startswith("cpu") else "auto")
        settings = {"scales": preset.encoder_scales, "image_size": preset.image_size, "device": device}
        encoder = make_encoder(encoder or then["name"], weights, **settings)
    problem = None
    if encoder.weights_sha256 != then["weights_sha256"]:
        problem = f"other weights (sha256 {encoder.weights_sha256[:12]})"
    for name in ("mean", "std"):
        now = list(getattr(encoder, name))
        if problem is None and then.get(name, now) != now:
            problem = f"the {name} {now}, then {then[name]}"
    for scale, norm in (then.get("signature") or {}).items():
        now = encoder.signature.get(int(scale))
        # Rounding differs by device and thread count; another stride or padding changes far more than 1 %.
        if problem is None and (now is None or abs(float(now.norm()) - norm) > 1e-2 * norm):
            problem = f"the same weights, but other features at scale {scale}"
    if problem:
        raise PradotError(
            f"{path} was made with {then['name']} ({then['weights_source']}, sha256 {then['weights_sha256'][:12]}); "
            f"{encoder.name} ({encoder.weights_source}) has {problem}: give the encoder of then (--encoder, --weights)"
        )
    return encoder


def _is_alike(value, example):
    """Whether a setting is of the kind that this version has."""
    is_number = lambda one: isinstance(one, float | int) and not isinstance(one, bool)  # noqa: E731
    if isinstance(example, tuple):  # branches
        return isinstance(value, list) and all(
            isinstance(one, list) and [*map(is_number, one)] == [True, True] for one in value
        )
    if example is None:  # max_steps
        return value is None or is_number(value)
    return is_number(value) if is_number(example) else type(value) is type(example)
