"""Bad and odd images: each is named with the remedy, or read right. Single files are read in test_images too."""

import io
import os
import socket
import struct
import zlib

import numpy as np
import pytest
from attempts import NAN, QUICK, records, run_folder
from PIL import Image

from pradot import Pradot, PradotError
from pradot.images import MAX_PIXELS, ImageError, find_images, image_shape, read_image, read_mask_file

pytestmark = pytest.mark.usefixtures("few_prototypes")


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


def test_few_or_equal_images_give_finite_scores(tiny_encoder, draw):
    few = {"n_prototypes": 16, "n_epochs": 1, "n_iter": 5, "branches": [(3, 0.3)]}
    starts = [{"start": start} for start in ("uniform", "images", "spread", "kmeans")]
    for normal in (draw(1, 0), draw(1, 0) * 4, [np.zeros((64, 64, 3), np.uint8)] * 4):  # one, equal, black
        for settings in [*starts, {"start": "spread", "solver": "streamed", "spread_power": 0.5}]:
            detector = Pradot(tiny_encoder, **few | settings).fit(normal)
            good, bad = detector.anomaly_scores([normal[0], 255 - normal[0]])
            assert np.isfinite([good, bad]).all()
            assert bad > good or settings["start"] == "uniform"  # prototypes that are not trained yet
