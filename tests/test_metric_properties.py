"""Laws of the metrics on whatever scores, labels and masks: order alone counts, no NaN in or out, ties, constants, extremes."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from pradot import counts, metrics
from pradot.errors import PradotError

IMAGE_METRICS = [metrics.auroc, metrics.average_precision, metrics.f1_max]
DTYPES = [np.float16, np.float32, np.float64, np.int8, np.uint16, np.int64, np.uint64]
LIMITS = [1e-9, 0.05, 0.3, 1.0]


def values_of(dtype):
    """Any finite numbers of a type, from the smallest to the largest."""
    if np.dtype(dtype).kind == "f":
        return st.floats(width=8 * np.dtype(dtype).itemsize, allow_nan=False, allow_infinity=False)
    return st.integers(np.iinfo(dtype).min, np.iinfo(dtype).max)


@st.composite
def levels(draw, n):
    """`n` different numbers of some type, rising."""
    dtype = draw(st.sampled_from(DTYPES))
    rising = sorted(draw(st.lists(values_of(dtype), min_size=n, max_size=n, unique=True)))
    rising = np.array(rising, dtype)
    assume((rising[1:] > rising[:-1]).all())  # 0.0 and -0.0 are different to a list
    return rising


@st.composite
def samples(draw):
    """Labels of both kinds and ranks of scores, few enough for ties."""
    n = draw(st.integers(2, 12))
    labels = np.array([True, False, *draw(st.lists(st.booleans(), min_size=n - 2, max_size=n - 2))])
    ranks = draw(hnp.arrays(np.int64, n, elements=st.integers(0, 4)))
    order = draw(st.permutations(range(n)))
    return labels[order], ranks


@st.composite
def images(draw):
    """Maps of ranks and masks of 1 to 4 images of various sizes; normal and defect pixels exist."""
    ranks, masks = [], []
    for _ in range(draw(st.integers(1, 4))):
        shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
        ranks.append(draw(hnp.arrays(np.int64, shape, elements=st.integers(0, 4))))
        masks.append(draw(st.one_of(st.booleans().map(lambda full, s=shape: np.full(s, full)), hnp.arrays(bool, shape))))
    flat = np.concatenate([mask.ravel() for mask in masks])
    assume(flat.any() and not flat.all())
    return ranks, masks


def as_defects(masks, part=1.0):
    """Every region as a defect, saturated at a part of its area."""
    defects = []
    for mask in masks:
        labelled, n_regions = ndimage.label(mask, np.ones((3, 3)))
        regions = [labelled == number for number in range(1, n_regions + 1)]
        defects.append([(region, part * region.sum()) for region in regions])
    return defects


def all_of_pixels(maps, masks):
    return [*metrics.au_pro(maps, masks, LIMITS), *metrics.au_spro(maps, as_defects(masks, 0.4), LIMITS)]


# Order alone counts


@given(samples(), levels(5))
def test_strictly_rising_maps_of_the_scores_change_nothing(drawn, rising):
    labels, ranks = drawn
    for metric in IMAGE_METRICS:
        assert metric(labels, rising[ranks]) == metric(labels, ranks)


@given(images(), levels(5))
def test_strictly_rising_maps_of_the_pixels_change_nothing(drawn, rising):
    ranks, masks = drawn
    maps = [rising[one] for one in ranks]
    assert all_of_pixels(maps, masks) == pytest.approx(all_of_pixels(ranks, masks), abs=1e-12)
    for found, expected in zip(metrics.pro_curve(maps, masks), metrics.pro_curve(ranks, masks), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-12)


@example([2**53, 2**53 + 1], np.int64)
@example([2**63, 2**63 + 1], np.uint64)
@given(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=2, unique=True), st.just(np.int64))
def test_integers_of_any_size_are_no_ties(scores, dtype):
    low, high = np.array(sorted(scores), dtype)
    assert metrics.auroc([0, 1], np.array([low, high])) == 1
    maps = np.array([[[low, high]]])
    assert metrics.au_pro(maps, maps == high, 1.0) == 1 == metrics.au_spro(maps, [[(maps[0] == high, 1)]], 1.0)
    assert metrics.threshold(np.array([high, low]), 0.5) == float(high)


# Order of samples and images, and their number


@given(samples(), st.randoms(use_true_random=False))
def test_the_order_of_samples_does_not_count(drawn, random):
    labels, ranks = drawn
    order = random.sample(range(len(labels)), len(labels))
    for metric in IMAGE_METRICS:
        assert metric(labels[order], ranks[order]) == metric(labels, ranks)


@given(images(), st.randoms(use_true_random=False), st.integers(1, 30), st.integers(1, 30))
def test_neither_order_of_images_nor_size_of_buffers_counts(drawn, random, buffer, block):
    ranks, masks = drawn
    order = random.sample(range(len(ranks)), len(ranks))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "BUFFER", buffer)
        patch.setattr(counts, "BLOCK", block)
        found = all_of_pixels([ranks[index] for index in order], [masks[index] for index in order])
    assert found == pytest.approx(all_of_pixels(ranks, masks), abs=1e-12)


@given(images())
def test_turned_and_mirrored_images_count_alike_in_any_layout(drawn):
    ranks, masks = drawn
    expected = pytest.approx(all_of_pixels(ranks, masks), abs=1e-12)
    for turn in (np.transpose, np.flipud, np.fliplr, lambda one: np.repeat(one, 2, 1)[:, ::2], np.asfortranarray):
        assert all_of_pixels([turn(one) for one in ranks], [turn(mask) for mask in masks]) == expected


@given(samples(), st.integers(2, 3))
def test_every_sample_several_times_is_every_sample_once(drawn, times):
    labels, ranks = drawn
    for metric in IMAGE_METRICS:
        assert metric(np.tile(labels, times), np.tile(ranks, times)) == pytest.approx(metric(labels, ranks), abs=1e-12)


@given(images())
def test_every_image_twice_is_every_image_once(drawn):
    ranks, masks = drawn
    assert all_of_pixels(ranks * 2, masks * 2) == pytest.approx(all_of_pixels(ranks, masks), abs=1e-12)


# Complements and bounds


@given(samples())
def test_exchanged_classes_or_turned_scores_are_complements(drawn):
    labels, ranks = drawn
    assert metrics.auroc(labels, -ranks) == pytest.approx(1 - metrics.auroc(labels, ranks), abs=1e-15)
    assert metrics.auroc(~labels, -ranks) == metrics.auroc(labels, ranks)


@given(samples())
def test_values_lie_between_their_bounds(drawn):
    labels, ranks = drawn
    n, n_anomalous = len(labels), labels.sum()
    assert 0 <= metrics.auroc(labels, ranks) <= 1
    assert 0 < metrics.average_precision(labels, ranks) <= 1
    assert 2 * n_anomalous / (n + n_anomalous) <= metrics.f1_max(labels, ranks) <= 1  # that of "all are anomalous"
    assert [metric(labels, labels) for metric in IMAGE_METRICS] == [1, 1, 1]
    constant = np.full(n, ranks[0])
    prevalence = n_anomalous / n
    expected = [0.5, prevalence, 2 * prevalence / (1 + prevalence)]
    assert [metric(labels, constant) for metric in IMAGE_METRICS] == pytest.approx(expected, abs=1e-15)


@given(images())
def test_areas_lie_between_their_bounds(drawn):
    ranks, masks = drawn
    areas = metrics.au_pro(ranks, masks, LIMITS)
    assert all(0 <= area <= 1 for area in areas)
    assert all(low * a <= high * b + 1e-12 for (low, a), (high, b) in pairwise(zip(LIMITS, areas, strict=True)))  # it grows
    assert metrics.au_pro(masks, masks, LIMITS) == pytest.approx([1] * 4, abs=1e-12)
    assert metrics.au_pro([~mask for mask in masks], masks, LIMITS[:-1]) == [0] * 3
    # What saturates earlier is found earlier; a defect saturated at its area is a region.
    whole, early = (metrics.au_spro(ranks, as_defects(masks, part), LIMITS) for part in (1.0, 0.3))
    assert whole == pytest.approx(areas, abs=1e-12)
    assert all(one >= other - 1e-12 for one, other in zip(early, whole, strict=True))


@given(images())
def test_pixels_below_all_others_add_to_the_share_of_normal_ones_alone(drawn):
    ranks, masks = drawn
    n_normal = sum(np.count_nonzero(~mask) for mask in masks)
    more_ranks, more_masks = [*ranks, np.full((1, n_normal), -1)], [*masks, np.zeros((1, n_normal), bool)]
    # Twice as many normal pixels: what was at a rate is at half of it.
    assert metrics.au_pro(more_ranks, more_masks, 0.15) == pytest.approx(metrics.au_pro(ranks, masks, 0.3), abs=1e-12)


@given(images())
def test_evaluate_is_every_metric_of_its_own(drawn):
    ranks, masks = drawn
    labels, scores = np.array([mask.any() for mask in masks]), [one.max() for one in ranks]
    assume(labels.any() and not labels.all())
    found = metrics.evaluate(labels, scores, ranks, masks)
    pixels = np.concatenate([mask.ravel() for mask in masks]), np.concatenate([one.ravel() for one in ranks])
    for place, each in {"image": (labels, scores), "pixel": pixels}.items():
        for metric, name in zip(IMAGE_METRICS, ("auroc", "ap", "f1_max"), strict=True):
            assert found[f"{place}_{name}"] == metric(*each)
    assert [found["au_pro_30"], found["au_pro_05"]] == metrics.au_pro(ranks, masks, [0.3, 0.05])


# Threshold


@given(hnp.arrays(np.int64, st.integers(1, 30), elements=st.integers(0, 6)), levels(7), st.floats(0.01, 0.99))
def test_a_threshold_is_exceeded_at_the_rate_at_most(ranks, rising, rate):
    n = len(ranks)
    if n < 1 / rate - 1 - 1e-9:
        with pytest.raises(PradotError, match="say nothing"):
            metrics.threshold(ranks, rate)
        return
    found = metrics.threshold(ranks, rate)
    assert found in ranks
    # One more score that is like them: whichever of the n + 1 it is, at most so many exceed the threshold.
    assert np.sum(ranks > found) + 1 <= rate * (n + 1) + 1e-6
    assert np.sum(ranks >= found) + 1 > rate * (n + 1) - 1e-6  # and no lower one would do
    assert metrics.threshold(rising[ranks], rate) == float(rising[int(found)])
    assert metrics.threshold(ranks[::-1], rate) == found


@given(st.floats() | st.sampled_from(["0.1", None, 5e-324, 1e-300]))
def test_any_rate_gives_a_score_or_is_refused(rate):
    try:
        assert metrics.threshold([3.0, 4.0], rate) in (3.0, 4.0)
    except PradotError as error:
        assert "false-alarm rate" in str(error)


# What is no number


@given(samples(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_scores_that_are_not_finite_are_refused(drawn, bad, data):
    labels, ranks = drawn
    scores = ranks.astype(data.draw(st.sampled_from([np.float16, np.float32, np.float64])))
    scores[data.draw(st.integers(0, len(scores) - 1))] = bad
    for metric in IMAGE_METRICS:
        with pytest.raises(PradotError, match="NaN or infinite"):
            metric(labels, scores)
    with pytest.raises(PradotError, match="NaN or infinite"):
        metrics.threshold(scores, 0.5)


@given(images(), st.sampled_from([np.nan, np.inf, -np.inf]), st.data())
def test_maps_that_are_not_finite_are_refused(drawn, bad, data):
    ranks, masks = drawn
    maps = [one.astype(data.draw(st.sampled_from([np.float32, np.float64]))) for one in ranks]
    maps[data.draw(st.integers(0, len(maps) - 1))][-1, -1] = bad
    with pytest.raises(PradotError, match="NaN or infinite"):
        metrics.au_pro(maps, masks)
    with pytest.raises(PradotError, match="NaN or infinite"):
        metrics.au_spro(maps, as_defects(masks))


@pytest.mark.parametrize("scores", [[[1], [2, 3]], [1j, 2], ["a", "b"], [None, 1]])
def test_scores_that_are_no_row_of_numbers_are_refused(scores):
    for metric in IMAGE_METRICS:
        with pytest.raises(PradotError, match="expected"):
            metric([0, 1], scores)


# Counts


@given(st.data(), st.sampled_from([np.float32, np.float64, np.int64]))
def test_counts_are_those_of_comparing_every_pair(data, dtype):
    numbers = st.lists(values_of(dtype) | st.sampled_from([0, 1, -1]), min_size=1, max_size=12)
    normal, anomalous = (np.array(data.draw(numbers), dtype) for _ in range(2))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counts, "BUFFER", data.draw(st.integers(1, 20)))
        patch.setattr(counts, "BLOCK", data.draw(st.integers(1, 20)))
        pieces = np.split(normal, sorted(data.draw(st.lists(st.integers(0, len(normal)), max_size=3))))
        found = counts.count(pieces, len(normal), np.sort(anomalous))
    distinct = np.unique(anomalous)
    assert found.normal_above.tolist() == [np.sum(normal > one) for one in distinct]
    assert found.normal_at_or_above.tolist() == [np.sum(normal >= one) for one in distinct]
    assert found.anomalous_at_or_above.tolist() == [np.sum(anomalous >= one) for one in distinct]
    assert found.anomalous_tied.tolist() == [np.sum(anomalous == one) for one in distinct]
    assert np.sort(anomalous)[found.first].tolist() == distinct.tolist()


@given(st.data(), st.sampled_from([np.float32, np.float64]))
def test_sorted_scores_keep_their_groups(data, dtype):
    scores = np.array(data.draw(st.lists(values_of(dtype) | st.sampled_from([0.0, -0.0, 5e-324]), max_size=20)), dtype)
    groups = data.draw(hnp.arrays(np.int32, len(scores), elements=st.integers(0, 2**31 - 1)))
    found, found_groups = counts.sort_grouped(scores, groups)
    assert found.dtype == dtype and np.all(found[1:] >= found[:-1])
    pairs = sorted(zip(scores.tolist(), groups.tolist(), strict=True))
    assert sorted(zip(found.tolist(), found_groups.tolist(), strict=True)) == pairs
