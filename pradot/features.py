"""Features of images: computed a batch at a time, kept in a folder, and found there again."""

import hashlib
import os
import warnings
from contextlib import closing
from pathlib import Path

import platformdirs

from pradot.errors import PradotError, is_whole, printable
from pradot.feature_maps import are_usable
from pradot.files import alone, check_folder, plain_file
from pradot.images import ImageError, list_images, read_image, unreadable
from pradot.loading import load_batches
from pradot.memory import room
from pradot.progress import progress_bar
from pradot.sealed import load_sealed, save_sealed
from pradot.stopwatch import Stopwatch


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


def compute_features(encoder, images, batch_size, cache, progress, seconds, keep_gb):
    """Feature maps of some images at every scale of an encoder; as `Encoder.features`, which says what is what."""
    images = list_images(images)
    if not images:
        raise PradotError("no images to compute features of")
    if not is_whole(batch_size) or batch_size < 1:
        raise PradotError(f"batch_size: expected a whole number of images, at least 1, found {batch_size}")
    if cache is not None:
        check_folder(cache, "the feature cache (PRADOT_CACHE)")
    watch = Stopwatch({} if seconds is None else seconds)
    cached = None if cache is None else Path(cache) / f"{_cache_key(encoder, images)}.safetensors"
    if cached is None or cached.exists():
        return _load_or_compute(encoder, images, batch_size, cached, progress, watch, keep_gb)
    with alone(cached):  # runs in other processes that need the same features wait for them
        return _load_or_compute(encoder, images, batch_size, cached, progress, watch, keep_gb)


def _load_or_compute(encoder, images, batch_size, cached, progress, watch, keep_gb):
    """Feature maps from the file `cached`, or computed and left in it."""
    if cached is not None and cached.exists():
        try:
            features = {int(scale): maps for scale, maps in load_sealed(cached, key=cached.stem)[0].items()}
            watch.lap("loading")
            return features
        except PradotError as error:
            warnings.warn(f"cached features {cached} cannot be read and are computed again: {error}", stacklevel=4)
    folder = None if cached is None else cached.parent
    features = {
        scale: room((len(images), *encoder.grids[scale], encoder.channels[scale]), keep_gb, folder) for scale in encoder.scales
    }
    with (
        closing(load_batches(images, encoder.image_size, batch_size)) as batches,
        progress_bar(len(images), f"features {encoder.name}", "image", progress) as bar,
    ):
        for start, batch in zip(range(0, len(images), batch_size), batches, strict=True):
            watch.lap("loading")
            for scale, maps in encoder.maps(batch).items():
                _check(encoder, images, start, maps, scale)
                features[scale][start : start + len(batch)] = maps.cpu()
            watch.lap("features")
            bar.update(len(batch))
    if cached is not None:
        try:
            save_sealed({str(scale): maps for scale, maps in features.items()}, cached, key=cached.stem)
        except PradotError as error:  # the features are there: only the next run has to compute them again
            warnings.warn(f"computed features are not kept: {error}", stacklevel=4)
    return features


def _check(encoder, images, start, maps, scale):
    """Name the first image of a batch whose features cannot be compared."""
    usable = are_usable(maps)  # (B,)
    if not usable.all():
        number = start + int(usable.logical_not().nonzero()[0])
        image = images[number]
        name = printable(image) if isinstance(image, str | Path) else f"number {number} of the images given"
        raise ImageError(
            f"{encoder.name} gives NaN, infinite or too large features of the image {name} at scale {scale}: take it out of "
            "the data, or look at the encoder's weights"
        )


def _cache_key(encoder, images):
    """Name of the file of some images' features: what they hold, and all of the encoder that changes features."""
    key = hashlib.sha256(encoder.fingerprint.encode() + repr(encoder.scales).encode())
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
