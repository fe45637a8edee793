"""Ablations as data: every row changes what it says and nothing else."""

from dataclasses import asdict, replace
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from small_data import write_category, write_encoder

from pradot import PradotError
from pradot.branches import Branch
from pradot.cli import main
from pradot.paper import figures
from pradot.paper.ablations import (
    ABLATIONS,
    ENCODERS,
    RUNGS,
    ablation_table,
    get_ablation,
    missing_weights,
    run_ablation,
    write_ablation,
)
from pradot.paper.bench import list_ablation_jobs
from pradot.paper.presets import PRESETS, RIVALS, get_preset
from pradot.paper.records import read_record
from pradot.paper.tables import DASH, benchmarks, formatted
from pradot.paper.training import TrainingSet
from pradot.weights import OFFLINE_ENCODER, canonical_name

WEIGHTS_AVAILABLE = "pradot.paper.ablations.results.weights_available"

# What may differ from the base, by ablation.
CHANGED = {
    "alpha": {"branches"},
    "n": {"n_prototypes"},
    "reg": {"reg", "precision"},
    "scale": {"branches"},
    "positions": {"positions"},
    "ema": {"ema"},
    "start": {"start"},
    "encoder": {"branches"},
    "assignment": {"assignment"},
    "kmeans": {"start", "max_steps"},
    "size": {"image_size"},
    "ladder": set(RUNGS),
}


@pytest.mark.parametrize("base", [PRESETS["paper"], PRESETS["fast"], get_preset("paper", max_steps=60, batch_size=4)])
@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"rivals", "few", "contaminated"}))
def test_rows_change_what_the_ablation_is_about_and_nothing_else(name, base):
    ablation = get_ablation(name, base)
    assert ablation.name == name and ablation.question.endswith((".", "?"))
    assert len({row.label for row in ablation.rows}) == len(ablation.rows) >= 2
    assert len({(row.preset, row.encoder) for row in ablation.rows}) == len(ablation.rows)
    for row in ablation.rows:
        settings, of_base = asdict(row.preset), asdict(base)
        changed = {key for key in settings if settings[key] != of_base[key]}
        assert changed - {"variant"} <= CHANGED[name]
        assert ("variant" in changed) == bool(changed)  # nothing else is ever labelled as the base itself
        assert row.preset.is_shortened == base.is_shortened or row.preset.max_steps == 0 or name == "ladder"


@pytest.mark.parametrize("name", sorted(set(ABLATIONS) - {"reg", "encoder", "contaminated"}))
def test_the_base_is_one_of_the_rows(name):
    for base in (PRESETS["paper"], PRESETS["fast"]):
        assert [row.preset for row in get_ablation(name, base).rows].count(base) == 1


@pytest.mark.parametrize(
    ("name", "key", "values"),
    [
        ("n", "n_prototypes", [1 / 4, 1, 2, 4, 8, 16, 32]),
        ("reg", "reg", [0.001, 0.003, 0.01, 0.03, 0.1]),
        ("ema", "ema", [0, 0.5, 0.8, 0.9, 0.95, 0.99]),
        ("size", "image_size", [224, 320, 448]),
    ],
)
def test_values_on_the_axis_are_those_of_the_settings(name, key, values):
    rows = get_ablation(name, PRESETS["paper"]).rows
    assert [row.value for row in rows] == [getattr(row.preset, key) for row in rows] == values


def test_alphas_replace_the_bases_and_the_base_stands_beside_them():
    rows = get_ablation("alpha", PRESETS["paper"]).rows
    for row, alpha in zip(rows[:-1], [0, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9], strict=True):
        assert row.value == alpha and row.preset.branches == (Branch(2, alpha), Branch(3, alpha))
    assert rows[-1].label == "0 and 0.3" and rows[-1].value is None


def test_scales_and_their_unions():
    rows = {row.label: row.preset.branches for row in get_ablation("scale", PRESETS["paper"]).rows}
    assert list(rows) == ["1", "2", "3", "1 + 2", "1 + 3", "2 + 3", "1 + 2 + 3"]
    assert rows["1 + 3"] == (Branch(1, 0.0), Branch(1, 0.3), Branch(3, 0.0), Branch(3, 0.3))


def test_small_reg_is_never_computed_in_reduced_precision():
    assert {row.preset.precision for row in get_ablation("reg", PRESETS["fast"]).rows} == {"full"}


@pytest.mark.parametrize("name", ["paper", "sound", "fast"])
def test_the_ladder_changes_one_setting_a_rung_up_to_the_best(name):
    rows = [asdict(row.preset) for row in get_ablation("ladder", PRESETS[name]).rows]
    own = {"name", "summary", "variant"}
    for below, above in pairwise(rows):
        assert len({key for key in below if below[key] != above[key]} - own) == 1
    best = asdict(PRESETS["best"])
    assert {key for key in best if best[key] != rows[-1][key]} <= own


def test_rivals_stand_beside_the_base_and_the_best():
    ablation = get_ablation("rivals", PRESETS["sound"])
    assert [row.label for row in ablation.rows] == ["sound", "best", *RIVALS]
    assert [row.preset for row in ablation.rows] == [PRESETS["sound"], PRESETS["best"], *RIVALS.values()]
    assert [row.label for row in get_ablation("rivals", PRESETS["best"]).rows] == ["best", *RIVALS]


@pytest.mark.parametrize("name", ["alpha", "kmeans", "rivals", "ladder", "few", "contaminated"])
def test_another_method_is_no_base(name):
    with pytest.raises(PradotError, match="padim has no settings to change: name a preset of PRADOT, paper, sound, fast, best"):
        get_ablation(name, RIVALS["padim"])


@pytest.mark.parametrize("name", ["best", "fast", "paper"])
def test_few_images_are_drawn_for_each_method_alike(name):
    base = replace(PRESETS[name], image_size=320)
    ablation, n = get_ablation("few", base), base.n_prototypes
    beside = {"image_size": 320, "evaluation_size": base.evaluation_size}  # as the base's
    assert ablation.question.endswith(".")
    assert len({row.label for row in ablation.rows}) == len({row.preset for row in ablation.rows}) == 17
    for row in ablation.rows:
        images = row.preset.training.n_images
        assert row.value == images and row.preset.training == TrainingSet(images)
        said = "all images" if images is None else "1 image" if images == 1 else f"{images} images"
        assert row.label == f"{row.group}, {said}"
        expected = {
            name: base,
            f"patchcore, {n} per position": replace(
                RIVALS["patchcore-10"],
                variant=f"bank of {n} per position",
                parameters=(("part", min(1, n / (images or 1))),),
                **beside,
            ),
            "patchcore-10": replace(RIVALS["patchcore-10"], **beside),
        }[row.group]
        assert replace(row.preset, training=base.training) == expected
    assert [row.value for row in ablation.rows if row.group == name] == [1, 2, 4, 8, 16, None]
    assert [row.value for row in ablation.rows if row.group == f"patchcore, {n} per position"] == [1, 2, 4, 8, 16]


def test_rows_with_and_without_defects_leave_the_same_ones_out():
    base = replace(PRESETS["paper"], image_size=320)
    ablation = get_ablation("contaminated", base)
    assert ablation.question.endswith(".")
    assert [(row.group, row.value) for row in ablation.rows] == [
        (method, percent) for method in ("paper", "patchcore-1", "patchcore-10") for percent in (0, 5)
    ]
    for row in ablation.rows:
        assert row.preset.training == TrainingSet(contamination=row.value / 100, held_out=0.05)
        method = base if row.group == "paper" else replace(RIVALS[row.group], image_size=320, evaluation_size=224)
        assert replace(row.preset, training=method.training) == method
        assert row.preset.label == f"{row.group}, {row.value:g} % defects" and row.label == f"{row.group}, {row.value:g} %"


def test_a_vit_is_asked_for_blocks_instead_of_scales():
    for row in get_ablation("encoder", PRESETS["fast"]).rows:
        blocks = ENCODERS[row.encoder]
        assert {branch.scale for branch in row.preset.branches} == set(blocks or (2, 3))
        assert {branch.alpha for branch in row.preset.branches} == {0.0, 0.3}


def test_labels_say_what_the_base_has_changed_already():
    base = replace(PRESETS["fast"], n_prototypes=1, variant="1 per position")
    assert get_ablation("ema", base).rows[0].preset.label == "fast, 1 per position, ema 0"
    labels = [row.preset.label for row in get_ablation("n", base).rows]
    assert labels[:3] == ["fast, 1/4 per position", "fast, 1 per position", "fast, 2 per position"]


def test_weights_that_cannot_be_had_are_a_reason(no_hub):
    reasons = {row.encoder: missing_weights(row) for row in get_ablation("encoder", PRESETS["fast"]).rows}
    assert reasons.pop("tf_efficientnet_lite0") is None
    assert all("cannot be had (no download: no way to the hub)" in reason for reason in reasons.values())
    assert missing_weights(get_ablation("alpha", PRESETS["fast"]).rows[0]) is None


# Runs, tables, plots


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_category(root)
    write_category(root, "other", seed=1)
    return root


@pytest.fixture(scope="module")
def base():
    return replace(get_preset("fast", max_steps=1, batch_size=2), n_prototypes=1, image_size=48)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    return {"encoder": write_encoder(folder), "out": folder / "runs", "cache": folder / "cache", "categories": ["part"]}


@pytest.mark.parametrize("name", ["alpha", "n", "reg", "positions", "ema", "start", "assignment", "kmeans", "size"])
def test_every_ablation_runs_and_gives_a_table_and_a_plot(name, data, base, settings):
    ablation = get_ablation(name, base)
    result = run_ablation(ablation, "mvtec_ad", data, **settings)
    table = ablation_table(result)
    assert result.reasons == {} and list(table.index) == [row.label for row in ablation.rows]
    assert table.index.name == ablation.changes
    assert table[[(title, "this run") for title in ("image AUROC", "pixel AUROC")]].notna().all(axis=None)
    for row in ablation.rows:
        record = read_record(result.outcomes[row.label][0].path)
        assert table.loc[row.label, ("pixel AUROC", "this run")] == pytest.approx(100 * record["metrics"]["pixel_auroc"])
        assert record["label"] == row.preset.label and record["encoder"]["image_size"] == row.preset.image_size
    fig = figures.ablation_plot(ablation, table)
    assert [ax.get_title() for ax in fig.axes] == ["image AUROC (%)", "pixel AUROC (%)", "AU-PRO 30 %", "AU-PRO 5 %"]
    drawn = {round(y, 3) for line in fig.axes[1].lines for y in line.get_ydata()}
    if any(row.value is not None for row in ablation.rows):
        assert drawn == {round(value, 3) for value in table["pixel AUROC", "this run"]}
    else:
        offsets = fig.axes[1].collections[0].get_offsets()
        np.testing.assert_allclose(offsets, list(zip(table["pixel AUROC", "this run"], range(len(table)), strict=True)))
    plt.close(fig)


@pytest.mark.parametrize("values", [[100.0, 100.0], [98.7, 98.75], [60.0, 100.0], [97.0, None]])
@pytest.mark.parametrize("name", ["alpha", "positions"])
def test_differences_that_say_nothing_look_small(base, name, values):
    ablation = get_ablation(name, base)
    labels = [row.label for row in ablation.rows][:2]
    table = pd.DataFrame({("image AUROC", "this run"): values, ("image AUROC", "std"): [0.2, None]}, index=labels)
    (ax,) = figures.ablation_plot(ablation, table).axes
    low, high = ax.get_xlim() if name == "positions" else ax.get_ylim()
    assert high - low > 1 - 1e-9 and high < 100.5 + 0.05 * (high - low)
    assert low < values[0] < high and low < (values[1] or values[0]) < high
    plt.close(ax.figure)


@pytest.mark.parametrize("name", ["few", "contaminated"])
def test_training_sets_of_several_methods_run_and_are_drawn_as_lines(name, tmp_path_factory, settings):
    data = write_category(tmp_path_factory.mktemp("more"), n_train=20, n_good=4, n_bad=4).parent
    base = replace(PRESETS["best"], n_prototypes=1, image_size=48, max_steps=1)
    ablation = get_ablation(name, base)
    result = run_ablation(ablation, "mvtec_ad", data, **settings, n_seeds=2)
    table = ablation_table(result)
    assert result.reasons == {} and list(table.index) == [row.label for row in ablation.rows]
    for row in ablation.rows:
        record = read_record(result.outcomes[row.label][0].path)
        hidden, drawn = int(row.preset.training.contamination > 0), row.preset.training.n_images
        assert record["counts"]["train"] + record["counts"]["validation"] == (drawn or 20) + hidden
        assert record["counts"]["test"] == (8 if name == "few" else 7) and record["label"] == row.preset.label
    fig = figures.ablation_plot(ablation, table)
    groups = list(dict.fromkeys(row.group for row in ablation.rows))
    said = [text.get_text() for text in fig.axes[-1].get_legend().get_texts()]
    assert said == groups + ["all images"] * (name == "few")
    for group in groups:
        (line,) = (line for line in fig.axes[1].lines if line.get_label() == group)
        on_axis = [row for row in ablation.rows if row.group == group and row.value is not None]
        assert list(line.get_xdata()) == [row.value for row in on_axis]
        np.testing.assert_allclose(line.get_ydata(), table.loc[[row.label for row in on_axis], ("pixel AUROC", "this run")])
    ticks = [1, 2, 4, 8, 16] if name == "few" else [0, 5]
    assert [tick.get_text() for tick in fig.axes[1].get_xticklabels()] == [str(tick) for tick in ticks]
    dashed = [line for line in fig.axes[1].lines if line.get_linestyle() == "--"]
    assert len(dashed) == (2 if name == "few" else 0)
    plt.close(fig)


def test_rows_of_other_scales_take_the_encoders_other_maps(data, base, settings):
    ablation = get_ablation("scale", base)
    result = run_ablation(ablation, "mvtec_ad", data, **settings)
    missing = {label for label in (row.label for row in ablation.rows) if "1" in label}
    assert set(result.reasons) == missing  # the tiny encoder has no such map
    assert all("asked for [1]" in reason for reason in result.reasons.values())
    table = ablation_table(result)
    assert set(table.index[table["image AUROC", "this run"].isna()]) == missing


def test_several_seeds_and_categories_have_a_mean_and_a_spread(data, base, settings):
    ablation = get_ablation("positions", base)
    result = run_ablation(ablation, "mvtec_ad", data, **settings | {"categories": None}, n_seeds=2)
    table = ablation_table(result)
    values = {}
    for outcome in result.outcomes["learned"]:
        values.setdefault(outcome.job.seed, []).append(100 * read_record(outcome.path)["metrics"]["pixel_auroc"])
    means = [np.mean(of_seed) for of_seed in values.values()]
    assert [len(of_seed) for of_seed in values.values()] == [2, 2]
    assert table.loc["learned", ("pixel AUROC", "this run")] == pytest.approx(np.mean(means))
    assert table.loc["learned", ("pixel AUROC", "std")] == pytest.approx(np.std(means, ddof=1))
    assert " ± " in formatted(table).loc["learned", "pixel AUROC"]
    plt.close(figures.ablation_plot(ablation, table))


def test_a_row_without_weights_is_a_dash_with_its_reason(data, base, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(WEIGHTS_AVAILABLE, lambda name: (name == OFFLINE_ENCODER, "no download: no network"))
    result = run_ablation(get_ablation("encoder", base), "mvtec_ad", data, **settings)
    table = ablation_table(result)
    assert list(table.index[table["image AUROC", "this run"].notna()]) == list(result.outcomes) == [OFFLINE_ENCODER]
    path = write_ablation(result, tmp_path)
    text = path.with_name(path.name + ".md").read_text()
    assert path.name == f"mvtec_ad-ablation_encoder-fast_shortened-{OFFLINE_ENCODER}"
    assert "resnet18: the weights of resnet18.a1_in1k cannot be had (no download: no network)." in text
    dashes = next(line for line in text.splitlines() if line.startswith("| resnet50 ")).count(DASH)
    assert dashes == len(table.columns) - 2  # all but the seconds, which are not written
    assert "\\toprule" in path.with_name(path.name + ".tex").read_text()
    plt.close(figures.ablation_plot(result.ablation, table))


def test_nothing_to_plot_is_an_error(base):
    ablation = get_ablation("ema", base)
    table = pd.DataFrame({("image AUROC", "this run"): [float("nan")] * 6}, index=[row.label for row in ablation.rows])
    with pytest.raises(PradotError, match="no row of the ablation ema has numbers: there is nothing to plot"):
        figures.ablation_plot(ablation, table)


def test_nothing_to_write_is_an_error(data, base, settings, tmp_path, monkeypatch):
    monkeypatch.setattr(WEIGHTS_AVAILABLE, lambda name: (False, "no network"))
    result = run_ablation(get_ablation("encoder", base), "mvtec_ad", data, **settings)
    assert ablation_table(result).isna().all(axis=None)
    with pytest.raises(PradotError, match=r"no row of the ablation encoder has numbers: .*resnet18"):
        write_ablation(result, tmp_path)


def test_ones_own_file_of_weights_serves_the_row_of_its_architecture(data, base):
    ablation = get_ablation("encoder", base)
    jobs = list_ablation_jobs(ablation, "mvtec_ad", data, encoder="resnet18", weights="mine.safetensors")
    taken = {row.label: (of_row[0].encoder, of_row[0].weights) for row, of_row in jobs.items()}
    encoder, weights = taken.pop("resnet18")
    assert encoder == "resnet18" and weights.endswith("mine.safetensors")
    assert all(weights is None for _, weights in taken.values())


def test_records_of_an_ablation_are_no_benchmark(data, base, settings, tmp_path):
    run_ablation(get_ablation("positions", base), "mvtec_ad", data, **settings | {"out": tmp_path})
    assert {label for rows in benchmarks(tmp_path).values() for label in rows["label"]} == {"fast, shortened"}


def test_command_line_prints_and_writes_the_table(data, settings, tmp_path, capsys, monkeypatch):
    small = replace(PRESETS["fast"], n_prototypes=1, image_size=48)
    monkeypatch.setitem(PRESETS, "fast", small)
    monkeypatch.setenv("PRADOT_CACHE", str(settings["cache"]))
    monkeypatch.setattr(WEIGHTS_AVAILABLE, lambda name: (name == OFFLINE_ENCODER, "no download: no network"))
    common = ["bench", "--dataset", "mvtec_ad", "--root", str(data), "--category", "part", "--preset", "fast"]
    common += ["--encoder", settings["encoder"], "--max-steps", "1", "--batch-size", "2", "--out", str(tmp_path)]
    assert main([*common, "--ablation", "positions"]) == 0
    said = capsys.readouterr().out
    assert "| on the grid |" in said and "2 runs: 0 finished before, 2 done, 0 failed" in said
    assert {path.suffix for path in tmp_path.iterdir() if path.is_file()} == {".csv", ".md", ".tex"}
    assert main([*common, "--ablation", "positions"]) == 0 and "2 finished before" in capsys.readouterr().out
    assert main([*common, "--ablation", "encoder"]) == 0  # weights that cannot be had are no failure
    assert "resnet18: the weights of resnet18.a1_in1k cannot be had" in capsys.readouterr().out
    assert main([*common, "--ablation", "colour"]) == 1 and "unknown ablation" in capsys.readouterr().err


def test_an_unknown_ablation_is_an_error():
    with pytest.raises(PradotError, match="unknown ablation 'alphas'; known are alpha, n, reg"):
        get_ablation("alphas", PRESETS["fast"])


def test_names_of_encoders_are_timms():
    assert all(canonical_name(name) == name for name in ENCODERS)
