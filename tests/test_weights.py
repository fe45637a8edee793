"""Whose weights an encoder takes: from a file, from the hub, and what is said where there are none. Never with a network."""

import contextlib
import hashlib
import types

import httpx
import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from small_data import save_random

from pradot import Encoder, PradotError, encoder, weights
from pradot.encoder import default_encoder, make_encoder
from pradot.weights import OFFLINE_ENCODER, PAPER_ENCODER, weights_available

pytestmark = pytest.mark.usefixtures("no_hub")


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


@pytest.mark.parametrize(
    ("name", "message"),
    [("resnet5000", "no model 'resnet5000'; near it: .*resnet"), ("resnet50.nobody", "no weights 'nobody' of resnet50")],
)
def test_unknown_models_and_tags_are_errors(name, message):
    with pytest.raises(PradotError, match=message):
        Encoder(name)


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

    small = "test_resnet.r160_in1k"  # the paper's takes a second to build
    for module in (weights, encoder):
        monkeypatch.setattr(module, "PAPER_ENCODER", small)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **kwargs: None)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", fail)
    with pytest.raises(PradotError) as raised:
        Encoder(small)
    for part in (small, "download failed: the line is cut", "--weights FILE", f"--encoder {OFFLINE_ENCODER}"):
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
