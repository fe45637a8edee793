"""Settings out of range or of a wrong type: each is named before any work."""

import numpy as np
import pytest
from attempts import INF, NAN, QUICK

from pradot import Encoder, Pradot, PradotError

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
    *(
        {name: value}
        for name in ("validation_fraction", "spread_power", "smoothing", "top_part", "image_spread_power")
        for value in ("a", None, NAN)
    ),
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
