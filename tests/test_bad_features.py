"""Features that cannot be compared or kept: the image, or the encoder's weights, are named."""

import numpy as np
import pytest
import torch
from attempts import INF, NAN, QUICK
from PIL import Image

from pradot import Encoder, Pradot, PradotError
from pradot.images import ImageError


class Spoiling(torch.nn.Module):
    """Gives `value` for images that are all black."""

    def __init__(self, value):
        super().__init__()
        self.value = value
        self.net = torch.nn.Conv2d(3, 5, 16, stride=16)

    def forward(self, x):
        black = x.amax((1, 2, 3)) < -1.5
        return torch.where(black[:, None, None, None], torch.full_like(self.net(x), self.value), self.net(x))


@pytest.mark.parametrize("value", [NAN, INF, -INF, 1e25], ids=str)
@pytest.mark.parametrize("cached", [True, False])
def test_features_that_cannot_be_compared_name_their_image(tmp_path, draw, value, cached):
    encoder = Encoder.from_module(Spoiling(value), "spoiling", scales=(3,), image_size=64)
    cache = tmp_path / "cache" if cached else None
    detector = Pradot(encoder, **QUICK, cache=cache).fit(draw(3, 0))
    images = [tmp_path / f"{number}.png" for number in range(18)]  # two batches
    for path, image in zip(images, draw(18, 1), strict=True):
        Image.fromarray(image).save(path)
    Image.new("RGB", (64, 64)).save(images[17])
    for call in (detector.fit, detector.anomaly_scores):
        with pytest.raises(ImageError, match=f"spoiling gives NaN, infinite or too large features of the image {images[17]}"):
            call(images)
    with pytest.raises(ImageError, match="of the image number 1 of the images given"):
        detector.anomaly_scores([draw(1, 0)[0], np.zeros((64, 64, 3), np.uint8)])
    assert not cached or len(list(cache.glob("[0-9a-f]*.safetensors"))) == 1  # those of the first fit


def test_weights_that_give_nan_are_said_so_at_once(two_scales):
    module = two_scales()
    with torch.no_grad():
        module.fine.weight[0, 0, 0, 0] = NAN
    with pytest.raises(
        PradotError, match="net gives NaN, infinite or too large features of a drawn image: look at its weights"
    ):
        Encoder.from_module(module, "net", image_size=64)


@pytest.mark.parametrize("factor", [1e8, 1e-12], ids=["overflow", "underflow"])
def test_features_that_half_precision_cannot_hold_are_refused(two_scales, draw, factor):
    module = two_scales(bias=False)
    with torch.no_grad():
        module.fine.weight.mul_(factor)
    encoder = Encoder.from_module(module, "net", scales=(2,), image_size=64)
    settings = QUICK | {"branches": [(2, 0.0)], "start": "images"}
    with pytest.raises(PradotError, match=r"cannot be kept as torch\.float16: give storage='float32'"):
        Pradot(encoder, storage="float16", **settings).fit(draw(3, 0))
    assert np.isfinite(Pradot(encoder, **settings).fit(draw(3, 0)).anomaly_scores(draw(1, 1))).all()
