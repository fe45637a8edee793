"""Tensors on disk with a checksum of all that the file holds: what was cut, edited or swapped is told from what was written."""

import hashlib
import json
import re
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pradot.errors import PradotError
from pradot.files import no_room, plain_file, replacing


def save_sealed(tensors, path, metadata=None, *, key=""):
    """Write tensors to a safetensors file, whole or not at all, with the SHA-256 of metadata, tensors and key.

    Parameters
    ----------
    tensors : dict of str to Tensor
    path : str or Path
        Missing folders are made.
    metadata : dict of str to str, optional
        Kept beside the tensors.
    key : str
        Whose tensors these are; not kept in the file, but asked for when it is read: a file of another is then refused.

    Raises
    ------
    PradotError
        There is no room for it.
    """
    path, metadata = Path(path), dict(metadata or {})
    with replacing(path) as temporary:
        try:
            sealed = {"metadata": metadata, "sha256": _seal(key, metadata, tensors)}
            # One entry: of several, safetensors writes them in another order each time.
            save_file(tensors, temporary, metadata={"sealed": json.dumps(sealed, sort_keys=True)})
        except SafetensorError as error:  # what else goes wrong here than the disk?
            raise no_room(path, re.sub(r"^.*I/O error: ", "", str(error))) from error


def load_sealed(path, device="cpu", *, key=""):
    """Read what `save_sealed` wrote.

    Parameters
    ----------
    path : str or Path
    device : str
        Of the tensors.
    key : str
        As it was written with.

    Returns
    -------
    tensors : dict of str to Tensor
    metadata : dict of str to str

    Raises
    ------
    PradotError
        There is no such file, it is not whole, or not as it was written with this key.
    """
    path = Path(path)
    try:
        plain_file(path)
        with safe_open(path, framework="pt", device=str(device)) as file:
            metadata, seal = _sealed(file)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise PradotError(f"{path} is damaged ({error})") from error
    if seal != _seal(key, metadata, tensors):
        raise PradotError(f"{path} is damaged: it is not as it was written (its checksum differs)")
    return tensors, metadata


def read_metadata(path):
    """What `save_sealed` kept beside the tensors, unchecked, as a dict of str to str; empty where it is no such file."""
    try:
        with safe_open(path, framework="pt") as file:
            return _sealed(file)[0]
    except (SafetensorError, OSError):
        return {}


def hash_tensors(tensors):
    """SHA-256 over names, types, shapes and values of tensors."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key].detach().cpu().contiguous()
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy() if value.numel() else b"")
    return digest.hexdigest()


def _sealed(file):
    """Metadata and checksum of an open file; no checksum where there are none."""
    try:
        sealed = json.loads((file.metadata() or {})["sealed"])
        metadata, seal = sealed["metadata"], sealed["sha256"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return {}, None
    is_text = isinstance(metadata, dict) and all(isinstance(value, str) for value in metadata.values())
    return (metadata, seal) if is_text else ({}, None)


def _seal(key, metadata, tensors):
    return hashlib.sha256(repr((key, sorted(metadata.items()), hash_tensors(tensors))).encode()).hexdigest()
