"""What a backbone's module returns, as feature maps."""

import math

import torch

from pradot.errors import PradotError


def as_feature_maps(returned, module, name, n_images):
    """Feature maps of some images from what the encoder's module has returned for them.

    Parameters
    ----------
    returned : Tensor, or list or tuple of Tensor
        Maps (n_images, channels, height, width), with the channels last if `module` says so (``output_fmt``), or tokens
        (n_images, n_tokens, channels), see `Encoder.from_module`.
    module : torch.nn.Module
    name : str
        The encoder's, for errors.
    n_images : int

    Returns
    -------
    list of Tensor of shape (n_images, height, width, channels)

    Raises
    ------
    PradotError
        If it has returned anything else.
    """
    maps = [returned] if isinstance(returned, torch.Tensor) else returned
    if isinstance(maps, list | tuple):
        maps = [_grid_of_tokens(one, module, name) if isinstance(one, torch.Tensor) and one.ndim == 3 else one for one in maps]
    if not isinstance(maps, list | tuple) or not all(_is_map(one, n_images) for one in maps):
        raise PradotError(
            f"{name} returned {outline(maps)} for {n_images} images; expected feature maps: a tensor of shape "
            "(images, channels, height, width), or a list of them, or tokens (images, height * width, channels)"
        )
    if getattr(module, "output_fmt", "NCHW") == "NHWC":  # some of timm's backbones, Swin among them, end with channels
        return list(maps)
    return [scale_maps.permute(0, 2, 3, 1) for scale_maps in maps]  # (n_images, height, width, channels)


def _is_map(one, n_images):
    return isinstance(one, torch.Tensor) and one.ndim == 4 and len(one) == n_images


def _grid_of_tokens(tokens, module, name):
    """Tokens (n_images, n_tokens, channels) as a map (n_images, channels, side, side)."""
    n_prefix = getattr(module, "num_prefix_tokens", 0)
    n = tokens.shape[1] - n_prefix
    side = math.isqrt(max(n, 0))
    if n < 1 or side**2 != n:
        raise PradotError(
            f"{name} returned {outline(tokens)}; expected feature maps, or the tokens of a square map and before "
            f"them {n_prefix} others (num_prefix_tokens)"
        )
    return tokens[:, n_prefix:].transpose(1, 2).unflatten(2, (side, side))  # (n_images, channels, side, side)


def outline(value):
    """Type or shape of what a module returned."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {', '.join(dict.fromkeys(map(outline, value))) or 'nothing'}"
    return type(value).__name__


def are_usable(maps):
    """Which images of maps (n_images, height, width, channels) have features of finite length, as cosines need: (n_images,)."""
    return maps.square().sum(3).isfinite().all(2).all(1)
