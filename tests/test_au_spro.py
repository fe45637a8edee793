"""AU-sPRO: known answers by hand, laws, a plain sweep over all thresholds, and figures of MVTec's own evaluation."""

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pradot import counts, metrics
from pradot.errors import PradotError

LIMITS = [0.01, 0.05, 0.1, 0.3, 1.0]


def plain_au_spro(maps, defects, max_fpr):
    """One point for each distinct score, straight lines between them, cut at the limit."""
    good = [~np.any([np.zeros(one.shape)] + [mask for mask, _ in of], axis=0) for one, of in zip(maps, defects, strict=True)]
    normal = np.concatenate([one[mask] for one, mask in zip(maps, good, strict=True)])
    fpr, spro = [0.0], [0.0]
    for threshold in np.unique(np.concatenate([one.ravel() for one in maps]))[::-1]:
        fpr.append(np.mean(normal >= threshold))
        overlaps = [
            min(np.sum(one[mask] >= threshold) / saturation, 1)
            for one, of in zip(maps, defects, strict=True)
            for mask, saturation in of
        ]
        spro.append(np.mean(overlaps))
    inside = [(x, y) for x, y in zip(fpr, spro, strict=True) if x <= max_fpr]
    at_limit = (max_fpr, inside[-1][1] if inside[-1][0] == max_fpr else np.interp(max_fpr, fpr, spro))
    x, y = np.transpose([*inside, at_limit])
    return np.trapezoid(y, x) / max_fpr


def drawn_defects(seed, n_levels, sizes=((9, 7), (6, 11), (8, 8), (5, 5))):
    """Maps of few distinct levels; up to three defects an image, which may overlap; the last image is normal."""
    rng = np.random.default_rng(seed)
    maps = [rng.integers(n_levels, size=size).astype(np.float64) for size in sizes]
    defects = []
    for one in maps[:-1]:
        masks = [rng.random(one.shape) < rng.choice([0.05, 0.3]) for _ in range(rng.integers(4))]
        masks = [mask for mask in masks if mask.any()]
        defects.append([(mask, float(rng.choice([1, mask.sum(), rng.uniform(0.1, mask.sum())]))) for mask in masks])
    defects[0].append((np.arange(maps[0].size).reshape(maps[0].shape) < 5, 3))
    for one, of_image in zip(maps, [*defects, []], strict=True):
        for mask, _ in of_image:
            one += mask * rng.integers(n_levels, size=one.shape)
    return maps, [*defects, []]


def test_by_hand():
    maps = np.array([[[5, 3, 4], [2, 1, 0]], [[4, -1, -1], [-1, -1, -1]]])
    first = np.array([[1, 0, 0], [1, 0, 0]])  # scores 5 and 2
    second = np.array([[1, 0, 0], [0, 0, 0]])  # score 4
    # Normal: 4, 3, 1, 0 and five at -1. Both defects saturate at one pixel: the curve's points, x in ninths, are
    # (0, 1/2), (1, 1) across the tie at 4, then 1.
    assert metrics.au_spro(maps, [[(first, 1)], [(second, 1)]], 1.0) == pytest.approx((3 / 4 + 8) / 9)
    assert metrics.au_spro(maps, [[(first, 1)], [(second, 1)]], 1 / 18) == pytest.approx((1 / 2 + 3 / 4) / 2)
    # Saturation at 1.5 pixels: (0, 1/3), (1, 5/6), (2, 5/6), (2, 1).
    assert metrics.au_spro(maps, [[(first, 1.5)], [(second, 1)]], 1.0) == pytest.approx((7 / 12 + 5 / 6 + 7) / 9)
    # Overlapping defects, {5, 2} and {5, 3, 2}, each saturated at two pixels. Normal: 4, 1, 0 and 4, five at -1.
    # (0, 1/2), (2, 1/2) across the tie at 4, (2, 3/4), (2, 1).
    both = first + np.array([[0, 1, 0], [0, 0, 0]])
    assert metrics.au_spro(maps, [[(first, 2), (both, 2)], []], 1.0) == pytest.approx((2 * 1 / 2 + 7) / 9)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    n_levels=st.sampled_from([1, 2, 5, 40, 10**9]),
    buffer=st.sampled_from([1, 7, 64, 10**6]),
    block=st.sampled_from([1, 4, 10**6]),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_equal_to_plain_sweep(seed, n_levels, buffer, block, dtype):
    maps, defects = drawn_defects(seed, n_levels)
    maps = [(one - n_levels).astype(dtype) for one in maps]  # some negative
    limits = [*LIMITS, 0.77]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "BUFFER", buffer)
        patch.setattr(counts, "BLOCK", block)
        found = metrics.au_spro(maps, defects, limits)
    assert found == pytest.approx([plain_au_spro(maps, defects, limit) for limit in limits], abs=1e-12)
    assert [metrics.au_spro(maps, defects, limit) for limit in limits] == found
    assert all(type(value) is float for value in found)


def test_equal_to_the_evaluation_of_mvtec():
    """On drawn maps, of which only the levels above 12 % false positive rate are kept; its thresholds are sampled."""
    expected = {
        "logical_anomalies": [0.124597, 0.331685, 0.441373],
        "structural_anomalies": [0.122463, 0.242092, 0.330068],
    }
    with np.load(Path(__file__).parent / "loco_drawn_part.npz", allow_pickle=False) as part:
        maps, kinds = part["maps"], part["kind"]
        defects = [[] for _ in maps]
        for index, mask, saturation in zip(part["image"], part["masks"], part["saturation"], strict=True):
            defects[index].append((np.unpackbits(mask, axis=1, count=maps.shape[2]), saturation))
    for kind, values in expected.items():
        chosen = np.flatnonzero((kinds == kind) | (kinds == "good"))
        found = metrics.au_spro(maps[chosen], [defects[index] for index in chosen], [0.01, 0.05, 0.1])
        assert found == pytest.approx(values, abs=2e-4)


def test_is_au_pro_where_every_region_is_a_defect_saturated_at_its_area():
    rng = np.random.default_rng(0)
    masks = [ndimage.binary_dilation(rng.random((20, 30)) < 0.02) for _ in range(4)]
    masks[3][:] = False
    maps = [rng.normal(size=mask.shape) + mask for mask in masks]
    defects = []
    for mask in masks:
        labelled, n_regions = ndimage.label(mask, np.ones((3, 3)))
        defects.append([(labelled == number, np.sum(labelled == number)) for number in range(1, n_regions + 1)])
    assert metrics.au_spro(maps, defects, LIMITS) == pytest.approx(metrics.au_pro(maps, masks, LIMITS), abs=1e-12)


def test_finding_the_saturation_area_is_enough():
    mask = np.zeros((10, 10), dtype=bool)
    mask[:4] = True
    scores = np.zeros((10, 10))
    scores[0] = 1  # 10 of 40 pixels, and nothing else
    assert metrics.au_spro([scores], [[(mask, 10)]], LIMITS) == pytest.approx([1] * 5, abs=1e-12)
    # A second defect, wholly found, cannot make up for half of this one.
    assert metrics.au_spro([scores], [[(mask, 20), (mask & (scores > 0), 10)]], 0.01) == pytest.approx(0.75, abs=0.01)


@pytest.mark.parametrize("limit", LIMITS)
def test_perfect_constant_and_inverted_maps(limit):
    _, defects = drawn_defects(3, 5)
    shapes = [(9, 7), (6, 11), (8, 8), (5, 5)]
    perfect = [sum((mask for mask, _ in of), np.zeros(shape)) for shape, of in zip(shapes, defects, strict=True)]
    assert metrics.au_spro(perfect, defects, limit) == pytest.approx(1, abs=1e-12)
    assert metrics.au_spro([np.full(shape, 0.3) for shape in shapes], defects, limit) == pytest.approx(limit / 2)
    assert metrics.au_spro([-one for one in perfect], defects, limit) == 0


@pytest.mark.parametrize("rescale", [np.exp, np.cbrt, lambda s: 5 * s - 3], ids=["exp", "cbrt", "affine"])
def test_only_the_order_of_scores_counts(rescale):
    maps, defects = drawn_defects(8, 20)
    assert metrics.au_spro([rescale(one) for one in maps], defects, LIMITS) == metrics.au_spro(maps, defects, LIMITS)


def test_nothing_depends_on_the_order_of_images_or_defects():
    maps, defects = drawn_defects(8, 10**9)
    expected = metrics.au_spro(maps, defects, LIMITS)
    assert metrics.au_spro(maps[::-1], [of[::-1] for of in defects[::-1]], LIMITS) == pytest.approx(expected, abs=1e-12)


def test_a_larger_saturation_area_is_never_easier():
    maps, defects = drawn_defects(1, 10**9)
    values = [
        metrics.au_spro(maps, [[(mask, share * mask.sum()) for mask, _ in of] for of in defects], 0.3)
        for share in (0.1, 0.3, 0.7, 1)
    ]
    assert values == sorted(values, reverse=True) and values[0] > values[-1]


def test_a_normal_score_that_only_float64_holds():
    maps = [np.array([[1.0, 0.0]], dtype=np.float32), np.array([[1.0 + 1e-12]])]
    defects = [[(np.array([[True, False]]), 1)], []]
    # Normal are 1 + 1e-12, above the defect, and 0.
    assert metrics.au_spro(maps, defects, 1.0) == 0.5


def test_sequences_that_load_one_image_at_a_time():
    maps, defects = drawn_defects(2, 50)

    class Lazy:
        def __init__(self, items):
            self.items, self.n_read = items, 0

        def __len__(self):
            return len(self.items)

        def __getitem__(self, index):
            item = self.items[index]  # IndexError ends an iteration
            self.n_read += 1
            return item

    lazy_maps, lazy_defects = Lazy(maps), Lazy(defects)
    assert metrics.au_spro(lazy_maps, lazy_defects, LIMITS) == metrics.au_spro(maps, defects, LIMITS)
    assert (lazy_maps.n_read, lazy_defects.n_read) == (8, 8)


def test_memory_does_not_grow_with_the_images(monkeypatch):
    monkeypatch.setattr(counts, "BUFFER", 2**14)
    maps = np.random.default_rng(0).normal(size=(200, 100, 100)).astype(np.float32)  # 8 MB
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, :5, :5] = True
    defects = [[(masks[0], 20)]] + [[]] * 199
    for measure in (lambda: metrics.au_pro(maps, masks), lambda: metrics.au_spro(maps, defects)):
        tracemalloc.start()
        measure()
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 0.5e6  # the buffer has 64 kB, an image 40 kB


def test_the_input_is_left_as_it_was():
    maps, defects = drawn_defects(2, 50)
    before = [one.copy() for one in maps], [[mask.copy() for mask, _ in of] for of in defects]
    metrics.au_spro(maps, defects)
    after = maps, [[mask for mask, _ in of] for of in defects]
    np.testing.assert_equal(after, before)


def test_what_cannot_be_measured():
    maps, defects = drawn_defects(1, 5)
    empty = [[] for _ in maps]

    def refused(message, maps=maps, defects=defects, max_fpr=0.05):
        with pytest.raises(PradotError, match=message):
            metrics.au_spro(maps, defects, max_fpr)

    def with_defect(mask, saturation):
        return [*defects[:3], [(mask, saturation)]]

    whole = np.ones((5, 5), dtype=bool)
    refused("undefined: .* no defect in all 4", defects=empty)
    refused("undefined: .* a defect at every pixel", maps=[np.ones((5, 5))], defects=[[(whole, 3)]])
    refused("a list for each of the 4 maps, found 3", defects=defects[:3])
    refused(r"image 3: .* \(5, 5\) and \(5, 4\)", defects=with_defect(whole[:, :4], 1))
    refused(r"map 0: .* found \(5,\)", maps=np.ones((1, 5)), defects=[[]])
    refused("defect 0 of image 3: .* at most the mask's 25 pixels, found 26", defects=with_defect(whole, 26))
    refused("above 0 .* found 0", defects=with_defect(whole, 0))
    refused("found nan", defects=with_defect(whole, np.nan))
    refused("the mask's 0 pixels, found 1; .* leave out masks without a pixel", defects=with_defect(~whole, 1))
    refused("expected only 0 .* found 255", defects=with_defect(np.full((5, 5), 255), 1))
    refused("expected a mask and its saturation area in pixels, found ndarray", defects=[*defects[:3], [whole]])
    refused("expected a mask and its saturation area in pixels, found tuple", defects=with_defect(whole, "all"))
    refused("anomaly map 3: expected finite numbers, found 1 of 25", maps=[*maps[:3], np.diag([np.nan, 1, 1, 1, 1])])
    for limit in (0, -0.1, 1.01, 30, np.nan, [], [0.05, 0], "0.05", None):
        refused("max_fpr: ", max_fpr=limit)
