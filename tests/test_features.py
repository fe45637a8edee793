"""Features that are kept: found again for the same images and encoder, and made again for any other."""

import threading

import pytest
import torch
from PIL import Image

from pradot import Encoder, PradotError
from pradot import features as features_module
from pradot.encoder import cache_folder

pytestmark = pytest.mark.usefixtures("no_hub")


def on_disk(folder, images):
    paths = [folder / f"{number}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


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
