"""Encoders from modules and functions of one's own: what they may return, and what is refused."""

import numpy as np
import pytest
import torch

from pradot import Encoder, PradotError

pytestmark = pytest.mark.usefixtures("no_hub")


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
