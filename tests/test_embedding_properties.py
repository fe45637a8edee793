"""Laws of joined embeddings on whatever numbers: ties, constants, zeros, extremes, shapes down to 1."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import EXTREMES, layouts, numbers

from pradot import PradotError
from pradot.embedding import embed


@st.composite
def scales(draw):
    """Feature maps of two scales of different grids and numbers of channels."""
    n = draw(st.integers(1, 20))
    grid = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3))
    return {scale: draw(numbers(n, *draw(grid))) for scale in (2, 3)}


@given(scales(), st.sampled_from([2, 3]), st.sampled_from(["joined", "pooled"]), st.data())
def test_joined_embeddings_have_one_length_a_scale_whatever_the_maps(features, scale, embedding, data):
    n = len(features[scale])
    size = data.draw(st.sampled_from(EXTREMES[1:]))
    features = {one: size * maps for one, maps in features.items()}
    joined = embed(features, scale, embedding)
    assert joined.shape == (*features[scale].shape[:3], sum(maps.shape[3] for maps in features.values()))
    for part in joined.split([features[one].shape[3] for one in sorted(features)], 3):
        length = part.norm(dim=3)
        assert ((length - 1).abs().lt(1e-5) | (length == 0)).all()
    order = data.draw(st.permutations(range(n)))
    kept = {one: data.draw(layouts(maps)) for one, maps in features.items()}
    torch.testing.assert_close(embed({one: kept[one][order] for one in (3, 2)}, scale, embedding), joined[order])
    alone = torch.cat([embed({one: maps[k : k + 1] for one, maps in features.items()}, scale, embedding) for k in range(n)])
    torch.testing.assert_close(alone, joined)


@given(scales(), st.sampled_from([2, 3]), st.sampled_from(["joined", "pooled"]), st.sampled_from([1, 2]))
def test_a_mirrored_image_has_mirrored_embeddings(features, scale, embedding, axis):
    mirrored = embed({one: maps.flip(axis) for one, maps in features.items()}, scale, embedding)
    found, expected = mirrored.flip(axis), embed(features, scale, embedding)
    # Where means of numbers of both signs are nearly nothing, their direction is that of rounding.
    assert (found - expected).norm(dim=3).quantile(0.5) < 1e-4 or features[2].min() < 0 or features[3].min() < 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_zeros_stay_zeros_in_every_precision(dtype):
    features = {2: torch.zeros(1, 2, 2, 3, dtype=dtype), 3: torch.ones(1, 1, 1, 2, dtype=dtype)}
    joined = embed(features, 2, "joined")
    assert joined.dtype == dtype and (joined[..., :3] == 0).all()
    torch.testing.assert_close(joined[..., 3:], torch.full((1, 2, 2, 2), 0.5**0.5, dtype=dtype))


@pytest.mark.parametrize(
    "other",
    [torch.rand(2, 2, 2, 3), torch.ones(3, 2, 2, 3, dtype=torch.uint8), torch.rand(3, 2, 2)],
    ids=["n", "type", "shape"],
)
def test_scales_that_do_not_belong_together_are_refused(other):
    with pytest.raises(PradotError, match=r"features of scale 3 are of shape .* must be floating-point numbers"):
        embed({2: torch.rand(3, 4, 4, 2), 3: other}, 2, "joined")
