"""Metrics: known answers by hand, equality with scikit-learn, and AU-PRO against a plain sweep over all thresholds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from sklearn import metrics as sk

from pradot import metrics
from pradot.errors import PradotError

IMAGE_METRICS = [metrics.auroc, metrics.average_precision, metrics.f1_max]


def sklearn_f1_max(labels, scores):
    precision, recall, _ = sk.precision_recall_curve(labels, scores)
    return max(2 * p * r / (p + r) for p, r in zip(precision, recall, strict=True) if p + r > 0)


def assert_equal_to_scikit_learn(labels, scores):
    references = [sk.roc_auc_score, sk.average_precision_score, sklearn_f1_max]
    for metric, reference in zip(IMAGE_METRICS, references, strict=True):
        assert metric(labels, scores) == pytest.approx(reference(labels, scores), abs=1e-12)


def plain_au_pro(maps, masks, max_fpr):
    """One point for each distinct score, straight lines between them, cut at the limit."""
    scores = np.concatenate([one.ravel() for one in maps])
    normal = np.concatenate([one[~mask] for one, mask in zip(maps, masks, strict=True)])
    regions = []
    for one, mask in zip(maps, masks, strict=True):
        labelled, n_regions = ndimage.label(mask, np.ones((3, 3)))
        regions += [one[labelled == number] for number in range(1, n_regions + 1)]
    fpr, pro = [0.0], [0.0]
    for threshold in np.unique(scores)[::-1]:
        fpr.append(np.mean(normal >= threshold))
        pro.append(np.mean([np.mean(region >= threshold) for region in regions]))
    area = 0.0
    for x0, x1, y0, y1 in zip(fpr[:-1], fpr[1:], pro[:-1], pro[1:], strict=True):
        if x0 >= max_fpr:
            break
        if x1 > max_fpr:
            y1 = y0 + (y1 - y0) * (max_fpr - x0) / (x1 - x0)
            x1 = max_fpr
        area += (x1 - x0) * (y0 + y1) / 2
    return area / max_fpr


def drawn_maps(seed, n_levels, sizes=((12, 9),) * 4, dtype=np.float64):
    """Maps of few distinct levels and masks of several small regions; the last image is normal."""
    rng = np.random.default_rng(seed)
    masks = [ndimage.binary_dilation(rng.random(size) < 0.04) for size in sizes]
    masks[0][2:4, 2:4] = True
    masks[-1][:] = False
    maps = [
        (rng.integers(n_levels, size=mask.shape) + mask * rng.integers(n_levels, size=mask.shape)).astype(dtype)
        for mask in masks
    ]
    return maps, masks


def test_known_answers():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.1, 0.4, 0.4, 0.8])
    assert metrics.auroc(labels, scores) == 3.5 / 4  # four pairs: three won, one tied
    assert metrics.average_precision(labels, scores) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.f1_max(labels, scores) == pytest.approx(0.8)  # at 0.4: precision 2/3, recall 1
    assert [metric(labels, -scores) for metric in IMAGE_METRICS] == pytest.approx([0.125, 5 / 12, 2 / 3])


def test_scores_that_are_all_equal():
    labels = np.array([1, 0, 0, 0])
    assert [metric(labels, np.ones(4)) for metric in IMAGE_METRICS] == pytest.approx([0.5, 0.25, 0.4])


@settings(max_examples=150, deadline=None)
@given(data=st.data(), dtype=st.sampled_from([np.float32, np.float64, np.int64, np.float16]))
def test_equal_to_scikit_learn(data, dtype):
    n = data.draw(st.integers(2, 60))
    n_levels = data.draw(st.sampled_from([1, 3, 10, 1000]))
    labels = data.draw(hnp.arrays(bool, n))
    labels[0], labels[-1] = True, False
    scores = (data.draw(hnp.arrays(np.int64, n, elements=st.integers(-n_levels, n_levels))) * 0.7).astype(dtype)
    assert_equal_to_scikit_learn(labels, scores)


@pytest.mark.parametrize("decimals", [1, 3, 9])
def test_equal_to_scikit_learn_on_many_pixels(decimals):
    rng = np.random.default_rng(decimals)
    labels = rng.random(200_000) < 0.03
    scores = np.round(rng.normal(size=labels.size) + labels, decimals).astype(np.float32)
    assert_equal_to_scikit_learn(labels, scores)


def test_au_pro_by_hand():
    maps = np.array([[[5, 3, 4], [2, 1, 0]], [[4, -1, -1], [-1, -1, -1]]])
    masks = np.array([[[1, 0, 0], [1, 0, 0]], [[1, 0, 0], [0, 0, 0]]])
    # Regions {5, 2} and {4}; normal pixels 4, 3, 1, 0 and five at -1. The curve's points, x in ninths:
    # (0, 1/4), (1, 3/4) across the tie at 4, (2, 3/4), (2, 1), (9, 1).
    assert metrics.au_pro(maps, masks, 1.0) == pytest.approx((1 / 2 + 3 / 4 + 7) / 9)
    assert metrics.au_pro(maps, masks, 2 / 9) == pytest.approx((1 / 2 + 3 / 4) / 2)
    assert metrics.au_pro(maps, masks, 1 / 18) == pytest.approx((1 / 4 + 1 / 2) / 2)  # the limit cuts the tie in half


@pytest.mark.parametrize("max_fpr", [0.003, 0.05, 0.1, 0.3, 0.77, 1.0])
@pytest.mark.parametrize("n_levels", [2, 5, 40, 10**9])
def test_au_pro_equal_to_plain_sweep(n_levels, max_fpr):
    maps, masks = drawn_maps(n_levels, n_levels)
    expected = plain_au_pro(maps, masks, max_fpr)
    assert metrics.au_pro(maps, masks, max_fpr) == pytest.approx(expected, abs=1e-12)
    assert metrics.au_pro(np.stack(maps), np.stack(masks), max_fpr) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("max_fpr", [0.01, 0.3, 1.0])
def test_au_pro_on_differing_sizes(max_fpr):
    maps, masks = drawn_maps(7, 6, sizes=[(12, 9), (5, 20), (1, 7), (8, 8)])
    maps[1] = maps[1].astype(np.float32)  # and differing types
    assert metrics.au_pro(maps, masks, max_fpr) == pytest.approx(plain_au_pro(maps, masks, max_fpr), abs=1e-12)


def test_au_pro_joins_diagonal_pixels_and_weighs_regions_alike():
    mask = np.zeros((6, 6), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[2, 2] = True  # one region, by its corners
    mask[5, 5] = True  # another
    scores = np.zeros((6, 6))
    scores[0, 0] = scores[5, 5] = 1
    # Detected before any normal pixel: a third of one region, all of the other; the rest only with every normal pixel.
    assert metrics.au_pro([scores], [mask], 1.0) == pytest.approx(((1 / 3 + 1) / 2 + 1) / 2)


@pytest.mark.parametrize("max_fpr", [0.05, 0.3, 1.0])
def test_au_pro_of_perfect_constant_and_inverted_maps(max_fpr):
    masks = np.stack(drawn_maps(0, 2)[1])
    assert metrics.au_pro(masks, masks, max_fpr) == pytest.approx(1, abs=1e-12)
    assert metrics.au_pro(np.full(masks.shape, 0.3), masks, max_fpr) == pytest.approx(max_fpr / 2)  # the diagonal
    assert metrics.au_pro(-masks.astype(float), masks, max_fpr) == 0


@pytest.mark.parametrize("rescale", [np.exp, np.cbrt, lambda s: 5 * s - 3], ids=["exp", "cbrt", "affine"])
def test_only_the_order_of_scores_counts(rescale):
    maps, masks = (np.stack(each) for each in drawn_maps(3, 20))
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    expected = metrics.evaluate(labels, scores, maps, masks)
    assert metrics.evaluate(labels, rescale(scores), rescale(maps), masks) == expected


@pytest.mark.parametrize("n_levels", [1, 5, 10**9])
def test_pro_curve_has_the_area_of_au_pro(n_levels):
    maps, masks = drawn_maps(5, n_levels)
    fpr, pro = metrics.pro_curve(maps, masks)
    assert (fpr[0], pro[0], fpr[-1], pro[-1]) == (0, 0, 1, 1)
    assert np.all(np.diff(fpr) >= 0) and np.all(np.diff(pro) >= 0)
    assert np.trapezoid(pro, fpr) == pytest.approx(metrics.au_pro(maps, masks, 1.0), abs=1e-12)


def test_evaluate_equals_the_single_metrics():
    maps, masks = drawn_maps(11, 8, dtype=np.float32)
    labels, scores = [mask.any() for mask in masks], [one.max() for one in maps]
    pixel_labels, pixel_scores = np.stack(masks).ravel(), np.stack(maps).ravel()
    expected = {
        "image_auroc": metrics.auroc(labels, scores),
        "pixel_auroc": metrics.auroc(pixel_labels, pixel_scores),
        "image_ap": metrics.average_precision(labels, scores),
        "pixel_ap": metrics.average_precision(pixel_labels, pixel_scores),
        "image_f1_max": metrics.f1_max(labels, scores),
        "pixel_f1_max": metrics.f1_max(pixel_labels, pixel_scores),
        "au_pro_30": metrics.au_pro(maps, masks, 0.3),
        "au_pro_05": metrics.au_pro(maps, masks, 0.05),
    }
    found = metrics.evaluate(labels, scores, maps, masks)
    assert found == pytest.approx(expected, abs=1e-12)
    assert all(type(value) is float for value in found.values())
    without_maps = metrics.evaluate(labels, scores)
    assert without_maps == {name: expected[name] if name.startswith("image") else None for name in expected}


def test_the_input_is_left_as_it_was():
    maps, masks = (np.stack(each) for each in drawn_maps(2, 50))
    labels, scores = masks.any(axis=(1, 2)), maps.max(axis=(1, 2))
    before = [each.copy() for each in (labels, scores, maps, masks)]
    metrics.evaluate(labels, scores, maps, masks)
    metrics.au_pro(maps, masks)
    for now, then in zip((labels, scores, maps, masks), before, strict=True):
        np.testing.assert_array_equal(now, then)


@pytest.mark.parametrize("metric", IMAGE_METRICS)
@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([0, 0, 0], [1, 2, 3], "undefined: .* all 3 normal"),
        ([1, 1], [1, 2], "undefined: .* all 2 anomalous"),
        ([0, 1], [1, 2, 3], r"found \(2,\), \(3,\)"),
        ([[0], [1]], [[1], [2]], r"shape \(n,\)"),
        ([0, 1], [1, np.nan], "found 1 of 2 NaN or infinite"),
        ([0, 1], [-np.inf, np.inf], "found 2 of 2 NaN or infinite"),
        ([0, 255], [1, 2], "found 255"),
        ([0, 1], ["a", "b"], "expected numbers"),
        (["good", "bad"], [1, 2], "0 .normal. and 1 .anomalous."),
        ([], [], "expected numbers"),
    ],
)
def test_input_that_cannot_be_measured(metric, labels, scores, message):
    with pytest.raises(PradotError, match=message):
        metric(labels, scores)


@pytest.mark.parametrize("measure", [metrics.au_pro, metrics.pro_curve])
def test_maps_that_cannot_be_measured(measure):
    maps, masks = (np.stack(each) for each in drawn_maps(1, 5))
    with pytest.raises(PradotError, match=r"undefined: .* no defect in all 4 masks"):
        measure(maps, np.zeros_like(masks))
    with pytest.raises(PradotError, match=r"undefined: .* a defect at every pixel in all 4 masks"):
        measure(maps, np.ones_like(masks))
    with pytest.raises(PradotError, match="one for each of the 4 maps, found 3"):
        measure(maps, masks[:3])
    with pytest.raises(PradotError, match=r"image 0: .* \(12, 9\) and \(9, 12\)"):
        measure(maps, masks.transpose(0, 2, 1))
    with pytest.raises(PradotError, match=r"image 0: .* found \(9,\) and \(9,\)"):
        measure(maps[0], masks[0])
    maps[2, 3, 4] = np.nan
    with pytest.raises(PradotError, match="anomaly map 2: expected finite numbers, found 1 of 108"):
        measure(maps, masks)


@pytest.mark.parametrize("max_fpr", [0, -0.1, 1.01, 30, np.nan])
def test_a_limit_that_is_no_false_positive_rate(max_fpr):
    maps, masks = drawn_maps(1, 5)
    with pytest.raises(PradotError, match="max_fpr"):
        metrics.au_pro(maps, masks, max_fpr)


def test_labels_are_taken_by_their_place_whatever_their_index():
    maps, masks = drawn_maps(1, 5)
    labels, scores = np.array([mask.any() for mask in masks]), np.array([one.max() for one in maps])
    index = np.arange(len(labels))[::-1]
    found = metrics.evaluate(pd.Series(labels, index), pd.Series(scores, index), maps, masks)
    assert found == metrics.evaluate(labels, scores, maps, masks)


def test_errors_name_the_metric_and_what_is_wrong_with_what():
    both, none, one = np.array([[[1, 0]]]), np.zeros((1, 1, 2)), np.array([[[0.2, 0.1]]])
    calls = {
        "AUROC undefined": lambda: metrics.auroc([0, 0], [1, 2]),
        "average precision undefined": lambda: metrics.average_precision([0, 0], [1, 2]),
        "F1-max undefined": lambda: metrics.f1_max([0, 0], [1, 2]),
        "AU-PRO undefined": lambda: metrics.au_pro(one, none),
        "AU-sPRO undefined": lambda: metrics.au_spro(one, [[]]),
        "PRO curve undefined": lambda: metrics.pro_curve(one, none),
        "image metrics undefined": lambda: metrics.evaluate([1, 1], [1, 2]),
        "pixel metrics undefined": lambda: metrics.evaluate([1, 0], [1, 2], [one[0]] * 2, [none[0]] * 2),
        "labels: expected only 0": lambda: metrics.auroc([0, 2], [1, 2]),
        "labels: expected 0": lambda: metrics.evaluate(["a", "b"], [1, 2]),
        "scores: expected finite": lambda: metrics.auroc([0, 1], [1, np.nan]),
        "normal scores: expected finite": lambda: metrics.threshold([np.nan], 0.5),
        "anomaly map 0: expected finite": lambda: metrics.au_pro(one / 0.0, both),
        "mask 0: expected only 0": lambda: metrics.au_pro(one, 2 * both),
        "mask of defect 0 of image 0: expected only 0": lambda: metrics.au_spro(one, [[(2 * both[0], 1)]]),
    }
    for said, call in calls.items():
        with np.errstate(divide="ignore"), pytest.raises(PradotError) as error:
            call()
        assert str(error.value).startswith(said)


def test_evaluate_refuses_what_does_not_belong_together():
    maps, masks = drawn_maps(1, 5)
    labels, scores = [mask.any() for mask in masks], [one.max() for one in maps]
    with pytest.raises(PradotError, match="found no masks"):
        metrics.evaluate(labels, scores, maps)
    with pytest.raises(PradotError, match="found no anomaly_maps"):
        metrics.evaluate(labels, scores, masks=masks)
    with pytest.raises(PradotError, match="each of the 4 labels, found 3"):
        metrics.evaluate(labels, scores, maps[:3], masks[:3])
    with pytest.raises(PradotError, match="image 0 is labelled normal"):
        metrics.evaluate(labels[::-1], scores, maps, masks)


def test_threshold_is_the_score_at_the_place_of_the_rate():
    scores = np.arange(1.0, 20.0)[::-1]  # 19: the places are whole numbers
    assert metrics.threshold(scores, 0.05) == 19
    assert metrics.threshold(scores, 0.1) == 18
    assert metrics.threshold(scores[:9], 0.1) == scores[:9].max()  # 10 x 0.9 is 9, rounding aside


def test_new_normal_scores_exceed_the_threshold_at_the_rate():
    rng = np.random.default_rng(0)
    scores = rng.gamma(3, size=(4000, 31))
    alarms = [one[-1] > metrics.threshold(one[:-1], 0.1) for one in scores]
    assert np.mean(alarms) == pytest.approx(3 / 31, abs=4 * np.sqrt(0.09 / 4000))  # place 28 of 30: 3 of 31 lie above it


@pytest.mark.parametrize(
    ("n", "rate", "said"), [(18, 0.05, "at least 19"), (8, 0.1, "at least 9"), (30, 0, "between 0 and 1"), (30, 1, "between")]
)
def test_a_threshold_that_says_nothing_is_refused(n, rate, said):
    with pytest.raises(PradotError, match=said):
        metrics.threshold(np.ones(n), rate)
