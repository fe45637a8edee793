"""Saved models: folders of ``model.safetensors`` and ``config.json``, and whether the two are whole and belong together."""

import json
from pathlib import Path

import torch

from pradot.branches import Branch
from pradot.cost import CostScale
from pradot.encoder import Encoder
from pradot.errors import PradotError
from pradot.files import replacing
from pradot.sealed import load_sealed, save_sealed
from pradot.settings import STORAGES, measures_spreads

MODEL_FORMAT = 4


def fitted_with(folder):
    """The encoder that a saved model was fitted with.

    Parameters
    ----------
    folder : str or Path
        Written by `Pradot.save`.

    Returns
    -------
    dict of str to value
        ``name``, ``weights_source``, ``weights_sha256``, ``scales`` and ``image_size`` of the `Encoder`.

    Raises
    ------
    PradotError
        No such model, another format, or one that was changed.
    """
    config, _ = _read_model(Path(folder))
    return config["encoder"]


def write_model(folder, detector, encoder, settings):
    """Write a fitted detector as `Pradot.save` does.

    Parameters
    ----------
    folder : Path
    detector : Pradot
    encoder : Encoder
        Its own.
    settings : dict of str to value
        What it is made with again, beside the encoder.
    """
    config = {
        "format": MODEL_FORMAT,
        "settings": settings,
        "encoder": {
            "name": encoder.name,
            "weights_source": encoder.weights_source,
            "weights_sha256": encoder.weights_sha256,
            "scales": list(encoder.scales),  # timm builds no stage beyond the last one: the hash depends on them
            "image_size": encoder.image_size,
        },
        "n_images": detector.n_images_,
        "notes": detector.notes_,
        "branches": [
            {"grid_shape": list(learner.grid_shape_), "scale": list(learner.scale_)} for learner in detector.learners_.values()
        ],
    }
    tensors = {f"signature.{scale}": vector for scale, vector in encoder.signature.items()}
    for number, learner in enumerate(detector.learners_.values()):
        tensors[f"prototypes.{number}"] = learner.prototypes_.to(STORAGES[detector.storage]).cpu().contiguous()
        tensors[f"positions.{number}"] = learner.positions_.cpu().contiguous()
    for number, spread in enumerate(detector.spreads_.values()):
        tensors[f"spread.{number}"] = spread.cpu().contiguous()
    _add_what_goes_on(detector, config, tensors)
    text = json.dumps(config, indent=1) + "\n"
    # The settings go into the safetensors header too: a pair of files from two models is told apart on loading.
    save_sealed(tensors, folder / "model.safetensors", {"config": text})
    with replacing(folder / "config.json") as temporary:
        temporary.write_text(text)


def _add_what_goes_on(detector, config, tensors):
    """What `partial_fit` goes on from and scoring does without: nothing after `fit`, which leaves nothing of the kind."""
    for number, (branch, learner) in enumerate(detector.learners_.items()):
        if learner._continues and learner._dual is not None:
            config["branches"][number]["transport"] = {"largest": learner._largest, "n_passes": learner._n_passes}
            tensors[f"dual.{number}"] = learner._dual.cpu().contiguous()
        if branch in detector.spread_counts_:
            tensors[f"spread_count.{number}"] = detector.spread_counts_[branch].cpu().contiguous()


def restore(detector, config, tensors, folder):
    """Give a detector that is being loaded the prototypes of its branches, and what `partial_fit` goes on from if it was used.

    Parameters
    ----------
    detector : Pradot
        With the model's encoder and settings.
    config : dict
        What ``config.json`` holds.
    tensors : dict of str to Tensor
        The model's.
    folder : str or Path
        Where they are from.

    Raises
    ------
    PradotError
        Something is missing, or of another kind than `write_model` writes.
    """
    detector.learners_, detector.spreads_, detector.spread_counts_ = {}, {}, {}
    try:
        detector.n_images_, detector.notes_ = config["n_images"], config["notes"]
        for number, (branch, learnt) in enumerate(zip(detector.branches, config["branches"], strict=True)):
            detector.learners_[branch] = learner = detector._learner(branch)
            learner.prototypes_ = tensors[f"prototypes.{number}"].to(learner.device, torch.float32)
            learner.positions_ = tensors[f"positions.{number}"].to(learner.device)
            learner.grid_shape_ = tuple(learnt["grid_shape"])
            learner.scale_ = CostScale(*learnt["scale"])
            if measures_spreads(detector):
                detector.spreads_[branch] = tensors[f"spread.{number}"].to(learner.device)
            if "transport" in learnt:
                learner._dual = tensors[f"dual.{number}"].to(learner.device)
                learner._largest, learner._n_passes = learnt["transport"]["largest"], learnt["transport"]["n_passes"]
                learner._continues = True
            if (count := tensors.get(f"spread_count.{number}")) is not None:
                detector.spread_counts_[branch] = count.to(learner.device)
    except KeyError as error:
        raise _damaged(folder, f"{error} is missing") from error
    except (TypeError, ValueError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error


def rounded(prototypes, dtype):
    """Prototypes (m, channels) rounded to another type; their directions, all that the cost looks at, must survive."""
    again = prototypes.to(dtype).to(prototypes.dtype)
    kept = torch.nn.functional.cosine_similarity(prototypes, again)  # (m,)
    if not (kept[prototypes.any(1)] > 0.999).all():  # NaN fails too
        raise PradotError(f"features this large or small cannot be kept as {dtype}: give storage='float32'")
    return again


def open_model(folder, known, encoder, device):
    """Read what a detector is made of again; see `Pradot.load`, also for the errors.

    Parameters
    ----------
    folder : Path
    known : collection of str
        Settings that a model may have.
    encoder : Encoder or None
        None: it is made again by its name.
    device : str
        Where to compute, when `encoder` is None.

    Returns
    -------
    encoder : Encoder
        The model's.
    settings : dict of str to value
        Its branches are a tuple of `Branch`.
    config : dict
        What ``config.json`` holds.
    tensors : dict of str to Tensor
    """
    config, tensors = _read_model(folder)
    made_with, settings = config["encoder"], dict(config["settings"])
    # A setting such as `cache` would make scoring write where the file says.
    if unknown := sorted(settings.keys() - known):
        raise _damaged(folder, f"it has settings that no model has: {', '.join(unknown)}")
    try:
        settings["branches"] = branches = tuple(Branch(*branch) for branch in settings["branches"])
        is_joined = settings["embedding"] != "scale"
    except (KeyError, TypeError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error
    if encoder is None:
        if ":" in made_with["name"] or made_with["weights_source"].startswith(("file", "made by")):
            raise PradotError(
                f"the model in {folder} was fitted with the encoder {made_with['name']} ({made_with['weights_source']}); "
                "give that encoder (--encoder, --weights)"
            )
        encoder = Encoder(made_with["name"], scales=made_with["scales"], image_size=made_with["image_size"], device=device)
    _check_encoder(encoder, made_with, tensors, made_with["scales"] if is_joined else {b.scale for b in branches}, folder)
    return encoder, settings, config, tensors


def _read_model(folder):
    """What `Pradot.save` wrote in a folder (Path): its ``config.json`` as a dict, and its tensors by name."""
    config, text = _read_config(folder)
    try:
        tensors, metadata = load_sealed(folder / "model.safetensors")
    except PradotError as error:
        raise _damaged(folder, error) from error
    if metadata.get("config") != text:
        raise PradotError(f"config.json and model.safetensors in {folder} are not of the same model: fit it again")
    return config, tensors


def _read_config(folder):
    """The settings of a saved model, and their text."""
    folder = Path(folder)
    for name in ("config.json", "model.safetensors"):
        if not (folder / name).is_file():
            raise PradotError(f"no model in {folder}: {name} is missing (a model is a folder written by `save`)")
    path = folder / "config.json"
    try:
        text = path.read_text()
        config = json.loads(text)
        if config["format"] != MODEL_FORMAT:
            raise PradotError(f"{path} has model format {config['format']}; this version reads {MODEL_FORMAT}: fit it again")
        encoder, settings = config["encoder"], config["settings"]
        kinds = {"name": str, "weights_source": str, "weights_sha256": str, "scales": list, "image_size": int}
        if not isinstance(settings, dict) or not all(isinstance(encoder[name], kind) for name, kind in kinds.items()):
            raise TypeError("settings or encoder are of another kind than `save` writes")
    except PradotError:
        raise
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _damaged(folder, f"{type(error).__name__}: {error}") from error
    return config, text


def _check_encoder(encoder, made_with, tensors, scales, folder):
    """Raise PradotError unless an `Encoder` is the one that the model in a folder was fitted with.

    Parameters
    ----------
    encoder : Encoder
    made_with : dict
        See `fitted_with`.
    tensors : dict of str to Tensor
        The model's, among them what its encoder made of a fixed image (``signature.<scale>``).
    scales : set of int
        Those of its branches.
    folder : Path
    """
    problem = None
    if encoder.image_size != made_with["image_size"]:
        problem = f"image size {made_with['image_size']}, not {encoder.image_size}"
    elif encoder.weights_sha256 != made_with["weights_sha256"]:
        problem = (
            f"weights {made_with['name']} (scales {made_with['scales']}, sha256 {made_with['weights_sha256'][:16]}...), "
            f"not {encoder.name} (scales {list(encoder.scales)}, {encoder.weights_sha256[:16]}...)"
        )
    for scale in scales:
        then, now = tensors.get(f"signature.{scale}"), encoder.signature.get(scale)
        if problem is None and (
            then is None
            or now is None
            or then.shape != now.shape
            # Rounding differs by device and thread count; another stride or normalisation changes far more than 1 %.
            or (then - now).norm() > 1e-2 * then.norm()
        ):
            problem = f"an encoder with other features at scale {scale}"
    if problem is not None:
        raise PradotError(f"the model in {folder} was fitted with {problem}: give the encoder it was fitted with")


def _damaged(folder, why):
    """The error that says that the model in a folder is damaged, and in what way."""
    return PradotError(f"the model in {folder} is damaged ({why}): fit it again, or get a whole copy of it")
