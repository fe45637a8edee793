"""Bad files and bad settings: each is an error that names the file or setting and the remedy, or the right answer.

What is attacked elsewhere: reading single images (test_images), layouts, split files and saturations (test_datasets,
test_layouts), archives (test_archives), models (test_detector), weights and modules (test_encoder), wrong usage (test_cli).
"""

import io
import json
import os
import resource
import shutil
import socket
import struct
import subprocess
import tarfile
import zlib
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from small_data import write_category, write_encoder, write_loco_category, write_visa

from pradot import Encoder, Pradot, PradotError
from pradot.cli import main
from pradot.files import alone, replacing, short_name
from pradot.images import MAX_PIXELS, ImageError, find_images, image_shape, read_image, read_mask_file
from pradot.paper.datasets import list_categories, load_category
from pradot.paper.evaluation import check_test
from pradot.paper.masks import read_saturations
from pradot.paper.own import write_predictions
from pradot.paper.presets import get_preset
from pradot.paper.records import read_record
from pradot.paper.runs import read_branch_maps, run
from pradot.sealed import load_sealed, save_sealed

NAN, INF = float("nan"), float("inf")
QUICK = {"n_prototypes": 1, "n_epochs": 1, "batch_size": 2, "n_iter": 5, "branches": [(3, 0.3)]}

pytestmark = pytest.mark.usefixtures("few_prototypes")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, with features cached in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def part(here):
    """A category of a few images with masks."""
    return write_category(here, "part", n_train=3, n_good=2, n_bad=2)


def attempt(capsys, *arguments):
    """Exit status of a command, what it printed, and its one error line, which must be all that stderr holds."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    assert status in (0, 1) and len(lines) == status and all(line.startswith("pradot: ") for line in lines)
    return status, printed.out, "".join(lines)


def run_folder(capsys, folder, *more):
    tiny = ["--preset", "fast", "--encoder", write_encoder(Path.cwd()), "--max-steps", 1, "--batch-size", 2, "--device", "cpu"]
    return attempt(capsys, "run", "--dataset", "folder", "--root", folder, *tiny, *more)


def records(folder="runs"):
    return [read_record(path) for path in sorted(Path(folder).rglob("*.json"))]


# Images


def png_of_size(width, height):
    """A PNG of a few bytes whose header claims a size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def encoded(image, kind, **settings):
    content = io.BytesIO()
    image.save(content, kind, **settings)
    return content.getvalue()


def frames(kind):
    red, blue = (Image.new("RGB", (8, 6), colour) for colour in ("red", "blue"))
    return encoded(red, kind, save_all=True, append_images=[blue], duration=10)


GREY = Image.new("L", (8, 6), 51)
BAD_IMAGES = {
    "bomb of 3.6 gigapixels": (png_of_size(60_000, 60_000), "more than the 89478485 pixels"),
    "bomb just beyond the bound": (png_of_size(MAX_PIXELS // 1000 + 1, 1000), "89479 x 1000 pixels, and at most 89478485"),
    "SVG": (b"<svg xmlns='http://www.w3.org/2000/svg' width='3' height='3'/>", "no image format that is read"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99), "no image format that is read"),
    "EPS, which Pillow hands to another program": (encoded(Image.new("RGB", (8, 6)), "EPS"), "no image format that is read"),
    "PDF": (encoded(Image.new("RGB", (8, 6)), "PDF"), "no image format that is read"),
    "zero bytes": (b"", "empty"),
}
BAD_PIXELS = {  # their headers are good
    "float TIFF with NaN": (encoded(Image.fromarray(np.full((6, 8), NAN, np.float32)), "TIFF"), "NaN or infinite"),
    "float TIFF to 255": (encoded(Image.fromarray(np.full((6, 8), 255, np.float32)), "TIFF"), "found 255 to 255"),
    "signed TIFF": (encoded(Image.fromarray(np.full((6, 8), -3, np.int32)), "TIFF"), "found -3 to -3"),
}
GOOD_IMAGES = {
    "animated GIF, its first frame": (frames("GIF"), (1, 0, 0)),
    "animated PNG": (frames("PNG"), (1, 0, 0)),
    "TIFF of two pages": (frames("TIFF"), (1, 0, 0)),
    "PNG of a wrong ending": (encoded(GREY, "PNG"), (0.2, 0.2, 0.2)),
    "CMYK JPEG": (encoded(Image.new("CMYK", (8, 6), (0, 255, 255, 0)), "JPEG"), (1, 0, 0)),
    "grey with alpha": (encoded(Image.new("LA", (8, 6), (51, 0)), "PNG"), (0.2, 0.2, 0.2)),
    "16 bit PNG": (encoded(Image.fromarray(np.full((6, 8), 13107, np.uint16)), "PNG"), (0.2, 0.2, 0.2)),
    "1 bit TIFF": (encoded(Image.new("1", (8, 6), 1), "TIFF"), (1, 1, 1)),
    "broken EXIF": (encoded(GREY, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"), (0.2, 0.2, 0.2)),
}


@pytest.mark.parametrize("attack", [*BAD_IMAGES, *BAD_PIXELS])
def test_an_image_that_cannot_be_read_is_named(tmp_path, attack):
    path = tmp_path / "a.png"
    content, said = (BAD_IMAGES | BAD_PIXELS)[attack]
    path.write_bytes(content)
    for read in (read_image, read_mask_file, *([image_shape] if attack in BAD_IMAGES else [])):
        with pytest.raises(ImageError, match=rf"Cannot read the image {path}: .*{said}.*Replace it or take it out"):
            read(path)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("attack", GOOD_IMAGES)
def test_an_unusual_image_is_read_right(tmp_path, attack):
    path = tmp_path / "a.jpg"
    content, colour = GOOD_IMAGES[attack]
    path.write_bytes(content)
    assert read_image(path).shape == (6, 8, 3) and image_shape(path) == (6, 8)
    np.testing.assert_allclose(read_image(path).reshape(-1, 3), np.tile(colour, (48, 1)), atol=0.01)


def test_extreme_sizes_are_scored_at_their_own_size(tiny_encoder, tmp_path, draw):
    detector = Pradot(tiny_encoder, **QUICK).fit(draw(3, 0))
    for name, size in {"wide": (20_000, 3), "point": (1, 1)}.items():
        Image.new("RGB", size, (90, 80, 70)).save(tmp_path / f"{name}.png")
        (one,) = detector.anomaly_maps([tmp_path / f"{name}.png"])
        assert one.shape == size[::-1] and np.isfinite(one).all()


def a_pipe(path):
    os.mkfifo(path)


def a_socket(path):
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(path.name)  # the current folder is the path's: a socket's path must be short


SPECIAL_FILES = {
    "pipe": (a_pipe, "a pipe, a socket or a device"),
    "socket": (a_socket, "a pipe, a socket or a device"),
    "link to a device": (lambda path: path.symlink_to("/dev/zero"), "a pipe, a socket or a device"),
    "link to itself": (lambda path: path.symlink_to(path.name), "symbolic links"),
    "link to nothing": (lambda path: path.symlink_to("gone"), "[Nn]o such file"),
}


@pytest.mark.parametrize("attack", SPECIAL_FILES)
def test_what_is_no_file_is_named_and_never_waited_for(here, tiny_encoder, attack):
    make, said = SPECIAL_FILES[attack]
    path = here / "a.png"
    make(path)
    calls = (read_image, read_mask_file, image_shape, lambda one: tiny_encoder.features([one], cache=here / "cache"))
    for call in calls:
        with pytest.raises(ImageError, match=rf"{path}: .*{said}"):
            call(path)


@pytest.mark.parametrize("place", ["train/good/a.png", "ground_truth/spot/001_mask.png"])
def test_a_pipe_among_the_data_is_named_and_never_waited_for(part, capsys, place):
    (part / place).unlink(missing_ok=True)
    a_pipe(part / place)
    status, _, error = run_folder(capsys, part)
    assert status == 1 and str(part / place) in error and "take it out of the data" in error


def test_links_to_images_and_folders_of_an_images_name_are_what_they_are(part, capsys):
    good = part / "train" / "good"
    (good / "link.png").symlink_to("000.png")
    (good / "folder.png").mkdir()
    (good / "loop").symlink_to(".")
    assert [path.name for path in find_images(good)] == ["000.png", "001.png", "002.png", "link.png"]
    assert run_folder(capsys, part)[0] == 0
    assert records()[0]["counts"]["train"] + records()[0]["counts"]["validation"] == 4


@pytest.mark.parametrize(
    "images, found",
    [
        (np.zeros((64, 64, 3), np.uint8), r"an array of shape \(64, 64, 3\)"),
        (np.zeros((64, 64)), r"an array of shape \(64, 64\)"),
        (Image.new("RGB", (8, 8)), "Image"),
        (None, "NoneType"),
        (3, "int"),
    ],
    ids=["colour array", "grey array", "PIL image", "nothing", "number"],
)
@pytest.mark.parametrize("call", ["fit", "anomaly_scores"])
def test_one_image_alone_is_no_list_of_images(tiny_encoder, draw, images, found, call):
    detector = Pradot(tiny_encoder, **QUICK).fit(draw(2, 0))
    with pytest.raises(PradotError, match=rf"A list of images is needed, not {found}: for one image give \[IMAGE\]"):
        getattr(detector, call)(images)
    stack = np.stack(draw(2, 0))
    assert detector.anomaly_scores(stack).tolist() == detector.anomaly_scores(list(stack)).tolist()


@pytest.mark.parametrize("kind", ["U1", "O", "M8[s]", "c8", "i1"])
def test_arrays_of_other_types_are_refused(kind):
    with pytest.raises(ImageError, match="convert it to uint8"):
        read_image(np.zeros((2, 2), kind))


# Masks


def save_mask(path, pixels):
    Image.fromarray(pixels).save(path)


def full(value, size=48):
    return np.full((size, size), value, np.uint8)


BAD_MASKS = {
    "another size": (lambda path: save_mask(path, full(255, 20)), "20 x 20 pixels .* 48 x 48: give the mask the image's size"),
    "no image": (lambda path: path.write_bytes(b"x"), "no image format that is read"),
    "float to 200": (
        lambda path: (path.unlink(), save_mask(path.with_suffix(".tif"), np.full((48, 48), 200, np.float32))),
        "found 200 to 200",
    ),
}


@pytest.mark.parametrize("attack", BAD_MASKS)
def test_a_bad_mask_is_found_before_the_fit(part, capsys, monkeypatch, attack):
    spoil, said = BAD_MASKS[attack]
    spoil(part / "ground_truth" / "spot" / "001_mask.png")
    monkeypatch.setattr(Pradot, "fit_features", None)  # a fit would fail
    monkeypatch.setattr(Encoder, "features", None)
    status, _, error = run_folder(capsys, part)
    assert status == 1 and "001_mask" in error
    with pytest.raises(PradotError, match=said):
        category = load_category("folder", part, "part")
        check_test(category, [image_shape(sample.path) for sample in category.test])


def test_a_bad_mask_of_loco_is_found_before_the_fit(tmp_path):
    folder = write_loco_category(tmp_path)
    category = load_category("mvtec_loco", tmp_path, folder.name)
    shapes = [image_shape(sample.path) for sample in category.test]
    assert check_test(category, shapes) == []
    save_mask(folder / "ground_truth" / "logical_anomalies" / "000" / "000.png", np.full((40, 56), 7, np.uint8))
    with pytest.raises(PradotError, match=r"no entry of pixel_value 7, the grey value of .*000\.png"):
        check_test(category, shapes)


def test_a_broken_test_image_is_found_before_the_fit(part, capsys, monkeypatch):
    path = part / "test" / "good" / "001.png"
    path.write_bytes(path.read_bytes()[:-400])  # its header is whole
    monkeypatch.setattr(Pradot, "fit_features", None)
    status, _, error = run_folder(capsys, part)
    assert status == 1 and f"Cannot read the image {path}" in error


@pytest.mark.parametrize(
    "masks, pixel_auroc, said",
    [
        ({"000": full(0), "001": full(0)}, None, "No mask shows a defect: pixel metrics are absent."),
        ({"000": full(0)}, ..., "The masks of 1 anomalous images show no defect (spot/000.png)"),
        ({"000": full(255), "001": full(255)}, ..., None),
        ({"000": np.stack([full(0), full(0), full(9)], 2)}, ..., None),
    ],
    ids=["all zero", "one zero", "all one", "colour"],
)
def test_masks_of_odd_content_are_evaluated_or_said_to_be_absent(part, capsys, masks, pixel_auroc, said):
    for name, mask in masks.items():
        save_mask(part / "ground_truth" / "spot" / f"{name}_mask.png", mask)
    status, printed, _ = run_folder(capsys, part)
    (record,) = records()
    assert status == 0 and record["metrics"]["image_auroc"] is not None
    assert record["metrics"]["pixel_auroc"] is None if pixel_auroc is None else 0 <= record["metrics"]["pixel_auroc"] <= 1
    assert (said is None) == (not any("show" in note for note in record["notes"]))
    assert said is None or said in printed


@pytest.mark.parametrize("folder, what", [("ground_truth/spot", "one image"), ("test/spot", "one mask")])
def test_names_that_differ_in_their_ending_alone_are_refused_where_masks_go_by_name(part, capsys, folder, what):
    path = sorted((part / folder).iterdir())[0]
    Image.open(path).save(path.with_suffix(".bmp"))
    status, _, error = run_folder(capsys, part)
    assert status == 1 and path.name in error and path.with_suffix(".bmp").name in error and f"both belong to {what}" in error
    shutil.rmtree(part / "ground_truth")  # without masks there is nothing to mix up
    assert len(load_category("folder", part, "part").test) >= 4


# Folders and lists


@pytest.mark.parametrize("missing, kind", [("good", "normal"), ("spot", "anomalous")])
def test_metrics_that_need_both_kinds_of_images_are_absent_and_said_so(part, capsys, missing, kind):
    shutil.rmtree(part / "test" / missing)
    status, printed, _ = run_folder(capsys, part)
    assert status == 0 and "no metrics" in printed and f"No {kind} test images: metrics that need both are absent." in printed
    assert set(records()[0]["metrics"].values()) == {None} and len(records()[0]["images"]) == 2


@pytest.mark.parametrize("name", ["größe ünder 日本", "[a-z]*?", "new\nline", "x" * 255, "-rf"])
def test_folders_of_odd_names_are_run_and_scored(here, capsys, name):
    folder = here / name
    write_category(here, name, n_train=2, n_good=1, n_bad=1)
    assert run_folder(capsys, folder, "--save-model", "models")[0] == 0
    assert [record["category"] for record in records()] == [name]
    images = folder / "test" / "spot"
    predict = ["--images", images, "--out", "scores", "--encoder", write_encoder(here)]
    assert attempt(capsys, "predict", "--model", Path("models") / name, *predict)[0] == 0


def test_file_names_that_are_no_text_or_too_long_are_scored(part, capsys):
    good = part / "train" / "good"
    for name in (b"caf\xe9.png", b'new\nline, "q".png', b"\x1b[31mred.png", b"x" * 251 + b".png"):
        shutil.copy(good / "000.png", os.fsencode(good) + b"/" + name)
    assert run_folder(capsys, good, "--save-model", "models")[0] == 0
    predict = ["--images", good, "--out", "scores", "--encoder", write_encoder(Path.cwd())]
    status, printed, _ = attempt(capsys, "predict", "--model", "models/good", *predict)
    assert status == 0 and "7 images scored" in printed and "\x1b" not in printed
    assert len(list(Path("scores/heat_maps").iterdir())) == 7
    table = Path("scores/scores.csv").read_text(encoding="utf-8")
    assert "caf\\udce9.png" in table and '"new\nline, ""q"".png"' in table and "x" * 251 in table
    os.truncate(os.fsencode(good) + b"/caf\xe9.png", 0)
    os.truncate(good / 'new\nline, "q".png', 0)
    assert "caf\\udce9.png" in run_folder(capsys, good)[2]


@pytest.mark.parametrize(
    "content, said",
    [
        (b"~nobody_of_this_name/a.png\n", "line 1: ~nobody_of_this_name/a.png"),
        (b"a\0b.png\n", "line 1: a"),
        ("a.png\n".encode("utf-16"), "no text file that lists images"),
        (b"part\n", "line 1: part"),
        (b"/dev/zero\n", "line 1: /dev/zero"),
        (b"# nothing\n\n", "lists no images"),
        (b"x" * 5000, "File name too long"),
        (b"parts.txt\n", "Cannot read the image .*parts.txt"),
    ],
    ids=["home of nobody", "NUL", "UTF-16", "folder", "device", "comments", "long name", "no image"],
)
def test_a_bad_list_of_images_is_named(here, capsys, content, said):
    (here / "part").mkdir()
    (here / "parts.txt").write_bytes(content)
    capsys.readouterr()
    with pytest.raises((PradotError, OSError), match=said):
        run("folder", here / "parts.txt", "parts", get_preset("fast"), Encoder(write_encoder(here)))
    assert main(["run", "--dataset", "folder", "--root", "parts.txt", "--encoder", write_encoder(here)]) == 1
    assert "Traceback" not in capsys.readouterr().err


def test_a_list_of_dos_lines_is_read(part, capsys):
    Path("list.txt").write_bytes(b"\xef\xbb\xbfpart/train/good/000.png\r\npart/train/good/001.png\r\n")
    assert run_folder(capsys, "list.txt")[0] == 0


@pytest.mark.parametrize("command", [["run", "--dataset", "folder"], ["doctor"], ["data", "--quick"]])
def test_the_home_of_nobody_is_no_traceback(here, capsys, monkeypatch, command):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    status = main([*command, "--root", "~nobody_of_this_name/x"])
    assert status == (1 if command[0] == "run" else 0) and "Traceback" not in capsys.readouterr().err


def test_images_that_vanish_are_named(part, capsys, monkeypatch):
    gone = part / "train" / "good" / "001.png"
    monkeypatch.setattr("pradot.paper.runs.check_test", lambda *_: gone.unlink() or [])  # after the listing, before the reading
    status, _, error = run_folder(capsys, part)
    assert status == 1 and str(gone) in error and "take it out of the data" in error
    assert not list(Path("runs").rglob("*.json"))


def test_few_or_equal_images_give_finite_scores(tiny_encoder, draw):
    few = {"n_prototypes": 16, "n_epochs": 1, "n_iter": 5, "branches": [(3, 0.3)]}
    starts = [{"start": start} for start in ("uniform", "images", "spread", "kmeans")]
    for normal in (draw(1, 0), draw(1, 0) * 4, [np.zeros((64, 64, 3), np.uint8)] * 4):  # one, equal, black
        for settings in [*starts, {"start": "spread", "solver": "streamed", "spread_power": 0.5}]:
            detector = Pradot(tiny_encoder, **few | settings).fit(normal)
            good, bad = detector.anomaly_scores([normal[0], 255 - normal[0]])
            assert np.isfinite([good, bad]).all()
            assert bad > good or settings["start"] == "uniform"  # prototypes that are not trained yet


# Features


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


# Settings


BAD_SETTINGS = [
    {"branches": None},
    {"branches": 3},
    {"branches": "ab"},
    {"branches": [(2,)]},
    {"branches": [(2.7, 0)]},
    {"branches": [(2, "x")]},
    {"branches": [(2, -0.1)]},
    {"branches": [(2, NAN)]},
    *({"reg": value} for value in (0, -1, NAN, INF, "a", None)),
    *({"n_prototypes": value} for value in (0, -1, 1.5, 0.5, NAN, INF, "16", None, True)),
    *({"n_iter": value} for value in (0, 2.5, "a", None)),
    *({"n_epochs": value} for value in (0, 1.5, NAN, None)),
    *({"batch_size": value} for value in (0, 2.5, "2", None)),
    *({"max_steps": value} for value in (-1, 1.5, "a")),
    *({"ema": value} for value in (1, -0.1, NAN, "a", None)),
    *({"tol": value} for value in (0, 3, NAN, "a")),
    *({"keep_gb": value} for value in (-1, NAN, "a")),
    *({"random_state": value} for value in (-1, 2**32, 1.5, None, "a")),
    *({name: value} for name in ("validation_fraction", "spread_power", "smoothing", "top_part") for value in ("a", None, NAN)),
    *({name: ["a"]} for name in ("positions", "solver", "precision", "start", "scoring", "assignment", "embedding", "storage")),
]


@pytest.mark.parametrize("settings", BAD_SETTINGS, ids=str)
def test_a_setting_out_of_range_is_named_before_any_work(tiny_encoder, draw, settings, monkeypatch):
    monkeypatch.setattr(type(tiny_encoder), "features", None)  # any work would fail
    ((name, _),) = settings.items()
    with pytest.raises(PradotError, match="alpha|scale|branches" if name == "branches" else name):
        Pradot(tiny_encoder, **QUICK | settings).fit(draw(2, 0))


@pytest.mark.parametrize("solver", ["kernel", "streamed"])
def test_a_tiny_reg_is_refused_or_right(tiny_encoder, draw, solver):
    settings = QUICK | {"solver": solver, "n_iter": 100}
    with pytest.raises(PradotError, match=r"reg = 1e-30 is too small .* larger reg"):
        Pradot(tiny_encoder, **settings | {"reg": 1e-30}).fit(draw(2, 0))
    assert np.isfinite(Pradot(tiny_encoder, **settings | {"reg": 1e-3}).fit(draw(2, 0)).anomaly_scores(draw(1, 1))).all()


@pytest.mark.parametrize("size", [0, -1, 2.5, "a", True])
def test_a_size_of_maps_out_of_range_is_named(tiny_encoder, draw, size):
    with pytest.raises(PradotError, match=r"size is .*whole number of pixels"):
        Pradot(tiny_encoder, **QUICK).anomaly_maps(draw(1, 0), size)


@pytest.mark.parametrize(
    "settings, said",
    [
        *(({"image_size": value}, "image_size is") for value in (0, -5, 2.5, "abc", None)),
        *(({"scales": value}, "scales are") for value in (3, None, ("a",), (-1,), (2.5,))),
        ({"device": "foo"}, "cannot compute on the device 'foo'"),
    ],
    ids=str,
)
@pytest.mark.parametrize("made", ["by name", "from a module"])
def test_a_bad_setting_of_the_encoder_is_named(two_scales, settings, said, made):
    with pytest.raises(PradotError, match=said):
        if made == "by name":
            Encoder(**{"image_size": 64} | settings)
        else:
            Encoder.from_module(two_scales(), "net", **{"image_size": 64} | settings)


@pytest.mark.parametrize("name", ["", None, 3, ".", "resnet50.", "a b", ":", "../x", "hf-hub:a/b", "x" * 1000], ids=str)
def test_names_of_no_encoder_are_refused(name):
    with pytest.raises(PradotError, match=r"timm .* knows no|give FILE\.py:FUNCTION"):
        Encoder(name, image_size=64)


def test_a_name_is_no_encoder(draw):
    with pytest.raises(PradotError, match=r"encoder is 'resnet50'; give a pradot\.Encoder"):
        Pradot("resnet50", **QUICK).fit(draw(2, 0))


@pytest.mark.parametrize(
    "change",
    [
        {"saturation_threshold": NAN},
        {"saturation_threshold": INF},
        {"saturation_threshold": "40"},
        {"relative_saturation": "false"},
        {"pixel_value": 254.5},
        {"pixel_value": "255"},
    ],
    ids=str,
)
def test_saturations_of_wrong_types_are_refused(tmp_path, change):
    config = write_loco_category(tmp_path, n_train=1, n_validation=1, n_good=1, n_bad=1) / "defects_config.json"
    entries = json.loads(config.read_text())
    entries[0] |= change
    config.write_text(json.dumps(entries))
    with pytest.raises(PradotError, match=r"defects_config\.json does not give .*entry of pixel_value"):
        load_category("mvtec_loco", tmp_path, config.parent.name)
    config.write_text("[" * 100_000)
    with pytest.raises(PradotError, match=r"defects_config\.json does not give"):
        read_saturations(config)


def test_a_split_of_lines_cut_short_is_named(tmp_path):
    split = write_visa(tmp_path) / "split_csv" / "1cls.csv"
    split.write_text(split.read_text().rstrip("\n") + "\ncandle,test,normal\n")
    with pytest.raises(PradotError, match=r"1cls\.csv is no split of VisA"):
        load_category("visa", tmp_path, "candle")


# Files of an earlier run: features, prototypes, models, records


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


def rewritten(path):
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


def with_its_metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path, metadata=metadata)


def header_edited(path):
    content = path.read_bytes()
    assert content.count(b'"F32"') >= 1
    path.write_bytes(content.replace(b'"F32"', b'"I32"'))


CHANGES = {
    "bytes flipped": flipped,
    "edited": rewritten,
    "edited, metadata kept": with_its_metadata,
    "header edited": header_edited,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("attack", CHANGES)
def test_a_changed_file_of_tensors_is_refused(tmp_path, attack):
    path = tmp_path / "x.safetensors"
    save_sealed({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, path, {"said": "yes"})
    tensors, metadata = load_sealed(path)
    assert tensors["a"].shape == (2, 3) and metadata == {"said": "yes"}
    CHANGES[attack](path)
    with pytest.raises(PradotError, match=r"x\.safetensors is damaged"):
        load_sealed(path)


@pytest.mark.parametrize("attack", ["bytes flipped", "edited", "header edited", "swapped"])
def test_changed_features_and_prototypes_are_made_again(tiny_encoder, tmp_path, draw, attack):
    cache, images = tmp_path / "cache", draw(3, 0)
    detector = Pradot(tiny_encoder, **QUICK, cache=cache).fit(images)
    expected = detector.anomaly_scores(images)
    Pradot(tiny_encoder, **QUICK, random_state=1, cache=cache).fit(draw(3, 1))
    features = sorted(cache.glob("[0-9a-f]*.safetensors"))
    prototypes = sorted(cache.glob("prototypes-*.safetensors"))
    assert len(features) == len(prototypes) == 2
    for one, other in (features, prototypes):
        if attack == "swapped":
            one.rename(cache / "x"), other.rename(one), (cache / "x").rename(other)
        else:
            CHANGES[attack](one)
            CHANGES[attack](other)
    with pytest.warns(UserWarning) as warned:
        again = Pradot(tiny_encoder, **QUICK, cache=cache).fit(images)
    said = " ".join(str(one.message) for one in warned)
    assert "computed again" in said and "learned again" in said and "damaged" in said
    assert again.anomaly_scores(images).tolist() == expected.tolist()


@pytest.mark.parametrize("attack", ["bytes flipped", "edited", "edited, metadata kept", "header edited", "a pipe"])
def test_a_changed_model_is_refused(tiny_encoder, tmp_path, draw, attack):
    Pradot(tiny_encoder, **QUICK).fit(draw(2, 0)).save(tmp_path)
    CHANGES[attack](tmp_path / "model.safetensors")
    with pytest.raises(PradotError, match=f"in {tmp_path} (is damaged|is missing)|model.safetensors is missing"):
        Pradot.load(tmp_path, encoder=tiny_encoder)


def test_a_model_changed_in_both_files_alike_is_refused(tiny_encoder, tmp_path, draw):
    Pradot(tiny_encoder, **QUICK).fit(draw(2, 0)).save(tmp_path)
    for name in ("config.json", "model.safetensors"):
        content = (tmp_path / name).read_bytes()
        assert b"training" in content
        (tmp_path / name).write_bytes(content.replace(b"training", b"practice"))
    with pytest.raises(PradotError, match=r"is damaged.*checksum.*fit it again"):
        Pradot.load(tmp_path, encoder=tiny_encoder)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(PradotError, match="is damaged"):
        Pradot.load(tmp_path, encoder=tiny_encoder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_prototypes):
    """A finished run: its folder and its record's path."""
    folder = tmp_path_factory.mktemp("finished")
    root = write_category(folder, "part", n_train=3, n_good=2, n_bad=2)
    preset = get_preset("fast", max_steps=1, batch_size=2)
    return folder, run("folder", root, "part", preset, Encoder(write_encoder(folder)), out=folder / "runs")[1]


@pytest.fixture
def record_path(finished, here):
    shutil.copytree(finished[0] / "runs", here / "runs")
    return here / "runs" / finished[1].relative_to(finished[0] / "runs")


def edited(**changes):
    """Entries of a record changed as by hand, or by a program that keeps the checksum up to date or knows of none."""

    def edit(path, sealed):
        record = json.loads(path.read_text())
        for key, value in changes.items():
            record[key] = {**record[key], **value} if isinstance(value, dict) and value else value
        if not sealed:
            del record["sha256"]
        path.write_text(json.dumps(record))

    return edit


RECORD_EDITS = {
    "no metrics": edited(metrics=[]),
    "a metric in words": edited(metrics={"image_auroc": "high"}),
    "a metric above 1": edited(metrics={"image_auroc": 7}),
    "a metric of NaN": edited(metrics={"image_auroc": NAN}),
    "no encoder": edited(encoder="resnet"),
    "an encoder of no name": edited(encoder={"name": None}),
    "no settings": edited(settings=None),
    "no kinds of defects": edited(by_defect=3),
    "no shapes": edited(image_shapes=3),
    "no versions": edited(versions=None),
    "no branches": edited(branches=None),
    "no category": edited(category=None),
    "no data set": edited(dataset=3),
    "a seed in words": edited(seed="x"),
    "a date in numbers": edited(created=3),
}


@pytest.mark.parametrize("sealed", [True, False], ids=["checksum kept", "no checksum"])
@pytest.mark.parametrize("attack", RECORD_EDITS)
def test_an_edited_record_is_refused_by_name(record_path, capsys, attack, sealed):
    RECORD_EDITS[attack](record_path, sealed)
    status, _, error = attempt(capsys, "tables", "--out", "tables")
    assert status == 1 and str(record_path.relative_to(Path.cwd())) in error and "delete it and run again" in error
    assert not Path("tables").exists()


def test_a_plausible_number_in_a_record_is_refused_too(record_path, capsys, finished, monkeypatch):
    before = read_record(record_path)
    edited(metrics={"image_auroc": 0.987})(record_path, True)
    assert "is not as it was written" in attempt(capsys, "tables", "--out", "tables")[2]
    preset = get_preset("fast", max_steps=1, batch_size=2)
    encoder = Encoder(write_encoder(finished[0]))
    record, path, is_new = run("folder", finished[0] / "part", "part", preset, encoder, out="runs")
    assert is_new and path.samefile(record_path) and record["metrics"] == before["metrics"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b"\xff\xfe\0"),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to(path.name)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.write_text(path.read_text().replace('"format": 1', '"format": 0')),
    ],
    ids=["deep", "binary", "empty", "pipe", "link to itself", "folder", "older format"],
)
def test_what_is_no_record_is_named(record_path, capsys, spoil):
    spoil(record_path)
    status, _, error = attempt(capsys, "tables", "--out", "tables")
    assert status == 1 and record_path.name in error and "run" in error


@pytest.mark.parametrize("attack", ["cut", "bytes flipped", "edited", "empty"])
def test_changed_patch_scores_are_refused(record_path, attack):
    assert len(read_branch_maps(record_path)) == 4
    CHANGES[attack](record_path.with_suffix(".safetensors"))
    with pytest.raises(PradotError, match=r"\.safetensors is damaged.*: delete the record beside it and run again"):
        read_branch_maps(record_path)


# Archives of single categories


def test_categories_that_come_one_by_one_are_put_together(here, capsys):
    archives = {}
    for name in ("bottle", "cable"):
        write_category(here / name, name, n_train=1, n_good=1, n_bad=1)
        (here / name / "licence.txt").write_text("a licence")
        archives[name] = here / f"{name}.tar"
        with tarfile.open(archives[name], "w") as tar:
            tar.add(here / name, ".")
        assert attempt(capsys, "data", "add", archives[name], "--root", "data")[0] == 0
    assert list_categories("mvtec_ad", "data") == ["bottle", "cable"]
    status, _, error = attempt(capsys, "data", "add", archives["cable"], "--root", "data")
    assert status == 1 and "data/mvtec_ad/cable is there already" in error
    assert list_categories("mvtec_ad", "data") == ["bottle", "cable"] and os.listdir("data") == ["mvtec_ad"]


# No room, no permission


@contextmanager
def files_of_at_most(n_bytes):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def write_text(path):
    with replacing(path) as temporary:
        temporary.write_text("x" * 100_000)


def write_tensors(path):
    save_sealed({"a": torch.zeros(100_000)}, path)


@pytest.mark.parametrize("write", [write_text, write_tensors])
def test_no_room_names_the_file_and_leaves_it_as_it_was(tmp_path, write):
    path = tmp_path / "x.safetensors"
    path.write_text("old")
    with (
        files_of_at_most(10_000),
        pytest.raises(PradotError, match=r"x\.safetensors cannot be written \(.*too large.*make room"),
    ):
        write(path)
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["x.safetensors"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a small disk")
def test_a_full_disk_costs_no_finished_work(part, capsys):
    disk = Path.cwd() / "disk"
    disk.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], capture_output=True)
    if made.returncode:
        pytest.skip("this machine lets no small disk be made")
    try:
        status, _, error = run_folder(capsys, part, "--out", disk)
        assert status == 1 and str(disk) in error and "No space left on device" in error and "make room" in error
        assert not list(disk.rglob("*.json")) and not list(disk.rglob("*partial*"))
    finally:
        subprocess.run(["umount", disk], check=True)
    status, printed, _ = run_folder(capsys, part)
    assert status == 0 and "branches were learned before" in printed


def test_a_cache_without_room_costs_nothing_but_time(part, tiny_encoder, draw, tmp_path):
    cache, images = tmp_path / "cache", draw(3, 0)
    expected = Pradot(tiny_encoder, **QUICK).fit(images).anomaly_scores(images)
    with files_of_at_most(100), pytest.warns(UserWarning) as warned:
        found = Pradot(tiny_encoder, **QUICK, cache=cache).fit(images).anomaly_scores(images)
    said = " ".join(str(one.message) for one in warned)
    assert "features are not kept" in said and "prototypes are not kept" in said and "make room" in said
    assert found.tolist() == expected.tolist() and not list(cache.iterdir())


@pytest.mark.parametrize("cache", ["file", "file/below", "/proc/nothing"])
def test_a_cache_that_is_no_folder_is_named(part, capsys, monkeypatch, cache):
    Path("file").write_text("mine")
    monkeypatch.setenv("PRADOT_CACHE", cache)
    status, _, error = run_folder(capsys, part)
    assert status == 1 and cache in error and "PRADOT_CACHE" in error and "name another" in error


def test_outputs_that_cannot_be_written_are_named_before_the_work(part, capsys, monkeypatch, tiny_encoder, draw):
    Path("file").write_text("mine")
    Pradot(tiny_encoder, **QUICK).fit(draw(2, 0)).save("model")
    monkeypatch.setattr(Pradot, "load", None)  # any work would fail
    monkeypatch.setattr("pradot.paper.speed.measure", None)
    images = part / "train" / "good"
    assert "(--out)" in attempt(capsys, "predict", "--model", "model", "--images", images, "--out", "file")[2]
    assert "is a folder: give the name of a file" in attempt(capsys, "speed", "--out", ".")[2]
    assert "(--out)" in attempt(capsys, "speed", "--out", "file/speed.json")[2]
    assert "file" in attempt(capsys, "notebooks", "00", "--out", "file")[2]
    assert Path("file").read_text() == "mine"


def test_images_that_cannot_be_scored_cost_no_score_of_others(part, capsys):
    good = part / "train" / "good"
    assert run_folder(capsys, good, "--save-model", "models")[0] == 0
    (good / "001.png").write_bytes(b"")
    predict = ["--images", good, "--out", "scores", "--encoder", write_encoder(Path.cwd())]
    status, printed, error = attempt(capsys, "predict", "--model", "models/good", *predict)
    assert status == 1 and "2 images scored" in printed and f"{good / '001.png'}: the file is empty" in error
    assert "1 of 3 images have no score" in error
    assert [line.split(",")[0] for line in Path("scores/scores.csv").read_text().splitlines()] == ["file", "000.png", "002.png"]


def test_names_too_long_for_what_stands_beside_them_are_shortened(tmp_path):
    assert short_name("a.json") == "a.json" and short_name("x" * 255) == "x" * 255
    long, other = "ü" * 120 + "a" * 15, "ü" * 120 + "b" * 15
    assert len(os.fsencode(short_name(long, 200))) <= 200 and short_name(long, 200) != short_name(other, 200)
    for name in (long, other):
        with alone(tmp_path / name), replacing(tmp_path / name) as temporary:
            temporary.write_text(name)
    assert sorted(os.listdir(tmp_path)) == [long, other] and (tmp_path / long).read_text() == long
    with replacing(tmp_path / long) as temporary, alone(tmp_path / other):  # who makes one does not remove the other half made
        temporary.write_text(long)
    write_predictions(tmp_path / "out", [Path("x" * 255), Path("x" * 254 + "y")], [np.eye(3), np.eye(3)])
    assert len(os.listdir(tmp_path / "out" / "heat_maps")) == 2
