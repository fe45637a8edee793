"""What the process has set for float32 products does not reach the method, and is as before afterwards."""

import pytest
import torch

from pradot import Encoder, PradotError, PrototypeLearner, prototypes, scoring
from pradot.precision import ieee_float32

MATMUL = torch.backends.mkldnn.matmul


@pytest.fixture(autouse=True)
def rounded_products():
    """A process that lets bfloat16 into its products."""
    before = MATMUL.fp32_precision
    MATMUL.fp32_precision = "bf16"
    yield
    assert MATMUL.fp32_precision == "bf16"
    MATMUL.fp32_precision = before


def test_inside_float32_is_ieee_everywhere():
    with ieee_float32():
        assert MATMUL.fp32_precision == "ieee"
        assert torch.backends.cuda.matmul.fp32_precision == "ieee"
        assert torch.backends.cudnn.conv.fp32_precision == "ieee"


def test_after_an_error_it_is_as_before():
    with pytest.raises(PradotError), ieee_float32():
        raise PradotError("something else")


@pytest.mark.parametrize("call", ["fit", "cost", "nearest"])
def test_learner(call, monkeypatch):
    seen = []
    features = torch.rand(3, 2, 2, 4)
    learner = PrototypeLearner(n_prototypes=1, batch_size=2, n_epochs=1, n_iter=2).fit(features)
    for module, name in ((scoring, "feature_cost"), (scoring, "NearestSearch"), (prototypes, "unit_vectors")):
        real = getattr(module, name)

        def spy(*args, real=real, **settings):
            seen.append(MATMUL.fp32_precision)
            return real(*args, **settings)

        monkeypatch.setattr(module, name, spy)
    getattr(learner, call)(features)
    assert set(seen) == {"ieee"}


def test_encoder():
    class Module(torch.nn.Module):
        def forward(self, x):
            self.seen = torch.backends.mkldnn.matmul.fp32_precision
            return x[..., ::4, ::4]

    module = Module()  # a picture of every fourth pixel
    encoder = Encoder.from_module(module, "picture", scales=(1,), image_size=32)
    encoder.features([torch.zeros(32, 32, 3, dtype=torch.uint8).numpy()])
    assert module.seen == "ieee"
