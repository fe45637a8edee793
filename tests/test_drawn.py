import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import binary_dilation

from pradot.errors import PradotError
from pradot.paper import drawn
from pradot.paper.drawn import LOGICAL, STRUCTURAL, draw, draw_scene
from pradot.paper.drawn.canvas import Canvas
from pradot.paper.drawn.light import shade
from pradot.paper.drawn.parts import CONTENTS
from pradot.paper.drawn.tray import PITCH, Pose, Tray, place_part

DEFECTS = (*STRUCTURAL, *LOGICAL)
FEW = dict(n_train=3, n_good=2, n_per_defect=1, size=64)


def contents(root):
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def tray(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("drawn"), **FEW) / "tray"


def test_pictures_are_those_of_their_version():
    """If this fails, the pictures have changed: raise VERSION, so that older sets are redrawn, and renew these numbers."""
    colours = {
        "good": (112.31, 114.19, 117.15),
        "scratch": (112.72, 114.40, 117.21),
        "dent": (112.65, 114.26, 117.06),
        "stain": (112.84, 114.31, 117.07),
        "missing": (114.12, 114.23, 115.09),
        "swapped": (112.28, 114.16, 117.12),
        "extra": (112.88, 114.53, 117.24),
    }
    assert drawn.VERSION == 3
    for defect, colour in colours.items():
        image, _ = draw_scene(np.random.default_rng(0), defect, size=64)
        assert image.mean((0, 1)) == pytest.approx(colour, abs=0.03), defect


def test_layout_and_counts(tray):
    names = lambda folder: sorted(path.name for path in (tray / folder).iterdir())  # noqa: E731
    assert names(".") == ["drawn.txt", "ground_truth", "test", "train"]
    assert names("train/good") == ["000.png", "001.png", "002.png"]
    assert names("test/good") == ["000.png", "001.png"]
    assert names("test") == sorted([*DEFECTS, "good"])
    assert names("ground_truth") == sorted(DEFECTS)
    for defect in DEFECTS:
        assert names(f"test/{defect}") == ["000.png"]
        assert names(f"ground_truth/{defect}") == ["000_mask.png"]
    assert [path.name for path in tray.parent.iterdir()] == ["tray"]  # nothing temporary is left


def test_files_are_8_bit(tray):
    with Image.open(tray / "train/good/000.png") as image:
        assert image.mode == "RGB" and image.size == (64, 64)
    for defect in DEFECTS:
        with Image.open(tray / f"ground_truth/{defect}/000_mask.png") as mask:
            assert mask.mode == "L" and mask.size == (64, 64)
            assert set(np.unique(mask)) == {0, 255}


def test_same_seed_same_bytes_other_seed_other_bytes(tray, tmp_path):
    again = draw(tmp_path / "again", **FEW) / "tray"
    assert contents(again) == contents(tray)
    other = draw(tmp_path / "other", seed=1, **FEW) / "tray"
    assert not set(contents(other).values()) & {data for name, data in contents(tray).items() if "ground_truth" not in name}


def test_more_images_keep_the_first_ones(tray, tmp_path):
    more = contents(draw(tmp_path, **{**FEW, "n_train": 4, "n_per_defect": 2}) / "tray")
    assert all(more[name] == data for name, data in contents(tray).items() if name != "drawn.txt")


def test_a_set_that_is_there_is_kept(tmp_path, monkeypatch):
    draw(tmp_path, **FEW)
    before = contents(tmp_path)
    monkeypatch.setattr(drawn, "draw_scene", lambda *args: pytest.fail("drawn again"))
    assert draw(tmp_path, **FEW) == tmp_path
    assert contents(tmp_path) == before


@pytest.mark.parametrize("spoil", ["an image", "a mask", "the version"])
def test_a_spoilt_set_is_drawn_again(spoil, tmp_path, tray):
    draw(tmp_path, **FEW)
    if spoil == "an image":
        (tmp_path / "tray/train/good/001.png").unlink()
    elif spoil == "a mask":
        (tmp_path / "tray/ground_truth/dent/000_mask.png").unlink()
    else:
        (tmp_path / "tray/drawn.txt").write_text("drawn by pradot.paper.drawn, version 0\n")
        (tmp_path / "tray/train/good/000.png").write_bytes(b"old")
    draw(tmp_path, **FEW)
    assert contents(tmp_path / "tray") == contents(tray)


def test_other_settings_replace_the_set(tmp_path):
    draw(tmp_path, **FEW)
    draw(tmp_path, **{**FEW, "n_train": 1})
    assert len(list((tmp_path / "tray/train/good").iterdir())) == 1


def test_an_interrupted_drawing_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(*args):
        if args[1] == "stain":
            raise KeyboardInterrupt
        return draw_scene(*args)

    monkeypatch.setattr(drawn, "draw_scene", interrupted)
    with pytest.raises(KeyboardInterrupt):
        draw(tmp_path, **FEW)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_was_not_drawn_is_left_alone(tmp_path):
    (tmp_path / "tray").mkdir()
    (tmp_path / "tray/holiday.png").write_bytes(b"mine")
    with pytest.raises(PradotError, match=r"without drawn\.txt"):
        draw(tmp_path, **FEW)
    assert (tmp_path / "tray/holiday.png").read_bytes() == b"mine"


def test_good_has_an_empty_mask():
    image, mask = draw_scene(np.random.default_rng(0), size=64)
    assert image.shape == (64, 64, 3) and image.dtype == np.uint8
    assert mask.shape == (64, 64) and mask.dtype == bool and not mask.any()


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("seed", range(4))
def test_the_mask_is_where_the_picture_differs(defect, seed):
    good, _ = draw_scene(np.random.default_rng(seed), "good")
    image, mask = draw_scene(np.random.default_rng(seed), defect)
    change = np.abs(image.astype(int) - good).max(2)
    assert 0.001 < mask.mean() < 0.15
    # Outside, only the cast shadow and the blur of the lens, both near the mask.
    assert change[~binary_dilation(mask, iterations=24)].max() <= 3
    assert (change[~binary_dilation(mask, iterations=3)] ** 2).sum() < 0.35 * (change**2).sum()
    assert (change[mask] > 3).mean() > 0.5
    assert change[mask].mean() > 10 * change[~mask].mean()


def test_parts_look_the_same_in_any_compartment():
    """The same contents in two compartments give the same light, so that exchanged parts cannot be told by their look."""
    canvas = Canvas(256)
    tray, pose = Tray(0.0, 0.0, 0.0), Pose(0.7, -1.1, 0.4, (0.01, 0.02), 1.0, 5)
    for item in CONTENTS[0]:
        for cell in range(4):
            place_part(canvas, tray, cell, item, pose)
    light = shade(canvas)
    step = int(PITCH)
    first = light[20 : 20 + 90, 20 : 20 + 90]
    assert first.std() > 0.05
    for down, right in [(0, step), (step, 0), (step, step)]:
        other = light[20 + down : 110 + down, 20 + right : 110 + right]
        np.testing.assert_allclose(other, first, atol=2e-3)


def test_unknown_defect_is_named():
    with pytest.raises(PradotError, match="'crack'"):
        draw_scene(np.random.default_rng(0), "crack")
