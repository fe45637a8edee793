import io
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from pradot import loading
from pradot.errors import PradotError
from pradot.images import (
    IMAGE_SUFFIXES,
    find_images,
    image_shape,
    read_image,
    read_mask_file,
    resize_image,
)
from pradot.loading import load_batches


def random_rgb(seed=0, shape=(13, 9, 3)):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".bmp", ".tif", ".TIFF"])
def test_lossless_rgb_files_give_their_values_over_255(tmp_path, suffix):
    rgb = random_rgb()
    Image.fromarray(rgb).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, rgb.astype(np.float32) / np.float32(255))


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp"])
def test_lossy_files_give_nearly_their_values(tmp_path, suffix):
    rgb = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    Image.fromarray(rgb).save(tmp_path / f"a{suffix}", quality=95)
    np.testing.assert_allclose(read_image(str(tmp_path / f"a{suffix}")), rgb / 255, atol=0.03)


def test_every_colour_mode_becomes_rgb(tmp_path):
    grey = random_rgb(1, (5, 7))
    three = np.stack([grey] * 3, axis=2) / np.float32(255)
    alpha = random_rgb(2, (5, 7))

    np.testing.assert_array_equal(read_image(Image.fromarray(grey)), three)
    np.testing.assert_array_equal(read_image(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)])), three)
    rgb = random_rgb(3, (5, 7, 3))
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    rgba.save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), rgb / np.float32(255))

    palette = Image.fromarray(np.array([[0, 1], [2, 1]], dtype=np.uint8), mode="P")
    palette.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 51])
    palette.save(tmp_path / "palette.png")
    red, green, blue = [1, 0, 0], [0, 1, 0], [0, 0, 0.2]
    np.testing.assert_allclose(read_image(tmp_path / "palette.png"), [[red, green], [blue, green]], rtol=1e-6)

    bits = np.array([[True, False, False], [False, True, True]])
    Image.fromarray(bits).save(tmp_path / "bits.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.tif"), np.stack([bits] * 3, axis=2))

    Image.new("CMYK", (2, 1), (0, 255, 255, 0)).save(tmp_path / "cmyk.tif")  # cyan off, magenta and yellow full: red
    np.testing.assert_array_equal(read_image(tmp_path / "cmyk.tif"), [[red, red]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_files_keep_their_depth(tmp_path, suffix):
    values = np.array([[0, 1, 256], [40000, 65534, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / f"a{suffix}")
    image = read_image(tmp_path / f"a{suffix}")
    np.testing.assert_allclose(image, np.stack([values / 65535] * 3, axis=2), rtol=1e-6)


def test_big_endian_16_bit():
    values = np.array([[0, 256], [40000, 65535]], dtype=">u2")
    image = Image.fromarray(values)
    assert image.mode == "I;16B"
    np.testing.assert_allclose(read_image(image)[:, :, 0], values / 65535, rtol=1e-6)


def test_32_bit_images_are_taken_in_their_documented_range_only():
    values = np.array([[0, 65535], [300, 7]], dtype=np.int32)
    np.testing.assert_allclose(read_image(Image.fromarray(values))[:, :, 1], values / 65535, rtol=1e-6)
    with pytest.raises(PradotError, match="0 to 65535, found -5 to 70000"):
        read_image(Image.fromarray(np.array([[-5, 70000]], dtype=np.int32)))
    unit = np.array([[0, 0.25], [1, 0.5]], dtype=np.float32)
    np.testing.assert_array_equal(read_image(Image.fromarray(unit))[:, :, 2], unit)
    with pytest.raises(PradotError, match=r"\[0, 1\], found 0 to 255"):
        read_image(Image.fromarray(255 * unit))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_exif_orientation_turns_the_image_upright(tmp_path, suffix):
    rgb = random_rgb(4, (6, 4, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(rgb).save(tmp_path / f"a{suffix}", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), np.rot90(rgb, -1) / np.float32(255))
    assert image_shape(tmp_path / f"a{suffix}") == read_image(tmp_path / f"a{suffix}").shape[:2]


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(
    "dtype, scale", [(np.uint8, 255), (np.uint16, 65535), (bool, 1), (np.float16, 1), (np.float32, 1), (np.float64, 1)]
)
def test_arrays(dtype, scale, channels):
    array = np.random.default_rng(0).random((4, 5, *channels))
    array = (array * (65535 if scale == 65535 else 255)).astype(dtype) if scale > 1 else array.round(2).astype(dtype)
    expected = array.astype(np.float64) / scale
    if not channels:
        expected = np.stack([expected] * 3, axis=2)
    image = read_image(array)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, expected, atol=1e-7)


def test_the_result_never_shares_memory_with_the_array():
    array = np.full((4, 5, 3), 0.5, dtype=np.float32)
    image = read_image(array)
    resized = resize_image(image, 4)
    image[:] = 0
    assert (array == 0.5).all()
    torch.testing.assert_close(resized, torch.full((3, 4, 4), 0.5))
    square = np.full((4, 4, 3), 0.5, dtype=np.float32)
    same_size = resize_image(square, 4)  # nothing to resize
    square[:] = 0
    assert (same_size == 0.5).all() and same_size.is_contiguous()


@pytest.mark.parametrize(
    "array, message",
    [
        (np.array([[0.1, np.nan]]), "NaN"),
        (np.array([[0.1, np.inf]]), "infinite"),
        (np.array([[0.1, 1.5]]), "found 0.1 to 1.5"),
        (np.array([[-0.1, 0.5]]), "found -0.1 to 0.5"),
        (np.zeros((3, 8, 9), dtype=np.uint8), r"\(3, 8, 9\)"),
        (np.zeros((8, 9, 4), dtype=np.uint8), r"\(8, 9, 4\)"),
        (np.zeros((0, 9, 3), dtype=np.uint8), r"\(0, 9, 3\)"),
        (np.zeros(9), r"\(9,\)"),
        (np.zeros((4, 4), dtype=np.int64), "int64"),
    ],
)
def test_unusable_arrays_are_refused(array, message):
    with pytest.raises(PradotError, match=message):
        read_image(array)


def test_other_types_are_refused():
    with pytest.raises(PradotError, match="not list"):
        read_image([[0, 1]])


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_truncated_file_is_named(tmp_path, kind):
    whole = io.BytesIO()
    Image.fromarray(random_rgb(5, (64, 64, 3))).save(whole, kind)
    path = tmp_path / "cut.png"
    path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    with pytest.raises(PradotError, match=r"cut\.png: .+Replace it"):
        read_image(path)


def test_unreadable_files_are_named_with_the_reason(tmp_path):
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no image")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PradotError, match=r"empty\.png: the file is empty"):
        read_image(tmp_path / "empty.png")
    with pytest.raises(PradotError, match=r"text\.png: its content is in no image format"):
        read_image(tmp_path / "text.png")
    with pytest.raises(PradotError, match=r"absent\.png: there is no such file"):
        read_image(tmp_path / "absent.png")
    with pytest.raises(PradotError, match=r"folder\.png: "):
        read_image(tmp_path / "folder.png")


@pytest.mark.parametrize("size", [5, 13, 40])
def test_resize_is_torchvisions(size):
    image = read_image(random_rgb(6, (31, 22, 3)))
    resized = resize_image(image, size)
    expected = v2.Resize((size, size), antialias=True)(torch.from_numpy(image).permute(2, 0, 1).contiguous())
    assert resized.shape == (3, size, size) and resized.dtype == torch.float32
    torch.testing.assert_close(resized, expected, rtol=0, atol=0)


def test_resize_by_half_averages_with_the_triangle_filter():
    row = np.array([0, 0, 0, 0, 1, 1, 1, 1], dtype=np.float32)
    image = np.repeat(np.repeat(row[None, :, None], 8, axis=0), 3, axis=2)
    # weights 1 3 3 1 over 8 around each output's centre; cut off at the border and renormalised
    torch.testing.assert_close(resize_image(image, 4)[0, 0], torch.tensor([0, 1 / 8, 7 / 8, 1]))


@pytest.mark.parametrize("side", [512, 640])
def test_a_resized_image_is_an_image(side):
    white = resize_image(np.ones((side, side, 3), np.float32), 224).permute(1, 2, 0).numpy()  # rounding would go beyond 1
    assert (read_image(white) == white).all()


def test_find_images_in_natural_order_without_hidden_or_other_files(tmp_path):
    names = ["10.png", "2.PNG", "1.jpg", "a10b.tif", "a9b.TIFF", "B1.Jpeg", "z.bmp", "y.WebP"]
    for name in [*names, ".hidden.png", "notes.txt", "Thumbs.db"]:
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    expected = ["1.jpg", "2.PNG", "10.png", "a9b.TIFF", "a10b.tif", "B1.Jpeg", "y.WebP", "z.bmp"]
    assert [path.name for path in find_images(tmp_path)] == expected
    assert {path.suffix.lower() for path in find_images(tmp_path)} == set(IMAGE_SUFFIXES)


def test_a_dangling_link_is_found_and_then_named(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    (path,) = find_images(tmp_path)
    with pytest.raises(PradotError, match=r"a\.png: there is no such file"):
        read_image(path)


def test_find_images_says_what_it_found_instead(tmp_path):
    with pytest.raises(PradotError, match=r"it holds nothing; expected files ending in \.png"):
        find_images(tmp_path)
    for name in ["a.txt", "b.TXT", "c", "d.heic"]:
        (tmp_path / name).touch()
    (tmp_path / "train").mkdir()
    with pytest.raises(PradotError, match=r"files \(2 \.txt, 1 no ending, 1 \.heic\) and folders \(train\)") as raised:
        find_images(tmp_path)
    assert str(tmp_path) in str(raised.value)
    with pytest.raises(PradotError, match=r"absent: it does not exist; the folder .+ does, and it holds files"):
        find_images(tmp_path / "nor" / "absent")
    with pytest.raises(PradotError, match="it is a file, not a folder"):
        find_images(tmp_path / "a.txt")


def test_image_shape_without_decoding(tmp_path):
    Image.fromarray(random_rgb()).save(tmp_path / "a.png")
    assert image_shape(tmp_path / "a.png") == (13, 9)
    (tmp_path / "b.png").write_bytes(b"")
    for name in ("b.png", "c.png"):
        with pytest.raises(PradotError, match=name):
            image_shape(tmp_path / name)


def loading_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("images")]


@pytest.mark.parametrize("n_threads", [1, 5])
@pytest.mark.parametrize("batch_size", [1, 4, 11, 50])
def test_batches_hold_the_images_in_order(tmp_path, monkeypatch, n_threads, batch_size):
    monkeypatch.setattr("torch.get_num_threads", lambda: n_threads)
    given = [random_rgb(seed, (40 if seed % 3 else 400, 30, 3)) for seed in range(11)]  # some take longer than others
    Image.fromarray(given[4]).save(tmp_path / "a.png")
    expected = torch.stack([resize_image(read_image(image), 16) for image in given])
    given[4] = tmp_path / "a.png"
    batches = list(load_batches(given, 16, batch_size))
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * ((11 - 1) // batch_size)
    assert torch.equal(torch.cat(batches), expected)
    assert not loading_threads()


def test_two_batches_are_made_while_one_is_used_and_no_more(monkeypatch):
    started = []
    monkeypatch.setattr(loading, "read_image", lambda image: started.append(image) or np.zeros((4, 4, 3), np.float32))
    batches = load_batches(range(100), 4, 5)
    assert not started  # nothing runs before the first is asked for
    for n_used in (1, 2, 3):
        next(batches)
        give_up = time.monotonic() + 60
        while len(started) < 5 * (n_used + 2) and time.monotonic() < give_up:
            time.sleep(0.001)  # nobody asks for an image, and still they come
        assert len(started) == 5 * (n_used + 2)
    batches.close()
    assert len(started) == 25 and not loading_threads()


@pytest.mark.parametrize("broken", [0, 7, 19])
def test_an_unreadable_image_stops_the_loading(tmp_path, broken):
    given = [random_rgb(seed) for seed in range(20)]
    given[broken:] = [tmp_path / f"{number}.png" for number in range(broken, 20)]  # none of them exists
    batches = load_batches(given, 8, 4)
    with pytest.raises(PradotError, match=rf"Cannot read the image .*{broken}\.png: there is no such file"):
        for _ in batches:
            pass
    assert not loading_threads()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "I;16"])
def test_a_mask_is_the_largest_channel_of_the_image(tmp_path, mode):
    grey = Image.fromarray(random_rgb()[..., 0])
    colour = Image.fromarray(random_rgb())
    image = (
        colour.convert(mode)
        if mode in ("P", "RGB")
        else grey.convert("I").convert(mode)
        if mode == "I;16"
        else grey.convert(mode)
    )
    image.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_mask_file(tmp_path / "mask.png"), read_image(tmp_path / "mask.png").max(axis=2))
    with pytest.raises(PradotError, match=r"no\.png: there is no such file"):
        read_mask_file(tmp_path / "no.png")
