"""Saved models: folders of ``model.safetensors`` and ``config.json``, and whether the two are whole and belong together."""

import json
from pathlib import Path

from pradot.errors import PradotError
from pradot.sealed import load_sealed

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
    config, _ = read_model(Path(folder))
    return config["encoder"]


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
        raise damaged(folder, f"{type(error).__name__}: {error}") from error
    return config, text


def read_model(folder):
    """What `Pradot.save` wrote in a folder (Path): its ``config.json`` as a dict, and its tensors by name."""
    config, text = _read_config(folder)
    try:
        tensors, metadata = load_sealed(folder / "model.safetensors")
    except PradotError as error:
        raise damaged(folder, error) from error
    if metadata.get("config") != text:
        raise PradotError(f"config.json and model.safetensors in {folder} are not of the same model: fit it again")
    return config, tensors


def damaged(folder, why):
    """The error that says that the model in a folder is damaged, and in what way."""
    return PradotError(f"the model in {folder} is damaged ({why}): fit it again, or get a whole copy of it")


def check_encoder(encoder, made_with, tensors, scales, folder):
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
