import json
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from pradot import PradotError
from pradot.paper.datasets import LOCO_TYPES, MVTEC_AD_CATEGORIES
from pradot.paper.evaluation import LOCO_METRICS, METRICS
from pradot.paper.peers import TITLES, peers, peers_by_category, peers_table
from pradot.paper.tables import (
    CATEGORIES,
    DASH,
    benchmark_table,
    benchmarks,
    collect,
    conditions,
    formatted,
    published,
    write_tables,
)


def write_record(
    folder, category, value, *, dataset="mvtec_ad", label="paper", seed=0, name=None, created="2026-01-01", **changes
):
    record = {
        "format": 1,
        "label": label,
        "dataset": dataset,
        "category": category,
        "seed": seed,
        "settings": {"batch_size": 64},
        "evaluation_size": 224,
        "encoder": {"name": "resnet50.a1_in1k", "weights_source": "timm", "weights_sha256": "ab" * 32, "image_size": 224},
        "metrics": dict.fromkeys(METRICS, value),
        "by_defect": {"scratch": dict.fromkeys(METRICS, value), "bent_lead": dict.fromkeys(METRICS, value and value / 2)},
        "branches": [{"steps": 150}],
        "image_shapes": {"900x900": 3},
        "versions": {"pradot": "0.1.0", "torch": "2", "timm": "1"},
        "created": created,
        **changes,
    }
    path = folder / f"{name or f'{category}-{label}-{seed}'}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def test_published_numbers_of_the_paper():
    table = published().set_index(["dataset", "category", "metric"])["value"]
    assert table["mvtec_ad", "mean", "image_auroc"] == 97.3
    assert table["mvtec_ad", "mean", "pixel_auroc"] == 97.6
    assert table["mvtec_loco", "mean", "au_spro_05"] == 52.6
    categories = published().query("dataset == 'mvtec_ad' and metric == 'image_auroc' and category != 'mean'")
    assert list(categories["category"]) == list(MVTEC_AD_CATEGORIES)
    assert categories["value"].mean() == pytest.approx(97.3, abs=0.05)


def test_this_run_paper_and_difference(tmp_path):
    write_record(tmp_path, "bottle", 0.985)
    table = benchmark_table(collect(tmp_path))
    assert list(table.index) == [*MVTEC_AD_CATEGORIES, "mean"]
    bottle = table.loc["bottle"]
    assert bottle["image AUROC", "this run"] == pytest.approx(98.5)
    assert bottle["image AUROC", "paper"] == 100.0
    assert bottle["image AUROC", "difference"] == pytest.approx(-1.5)
    assert ("AU-PRO 30 %", "paper") not in table.columns  # the paper does not report it
    text = formatted(table)
    assert text.loc["bottle"].iloc[:3].tolist() == ["98.5", "100.0", "-1.5"]
    assert text.loc["cable"].iloc[:3].tolist() == [DASH, "99.1", DASH]


def test_mean_is_of_the_whole_data_set_or_a_dash(tmp_path):
    for category in MVTEC_AD_CATEGORIES[:-1]:
        write_record(tmp_path, category, 0.9)
    assert np.isnan(benchmark_table(collect(tmp_path)).loc["mean", ("image AUROC", "this run")])
    write_record(tmp_path, MVTEC_AD_CATEGORIES[-1], 0.75)
    table = benchmark_table(collect(tmp_path))
    assert table.loc["mean", ("image AUROC", "this run")] == pytest.approx(89.0)
    assert table.loc["mean", ("image AUROC", "difference")] == pytest.approx(89.0 - 97.3)


def test_seeds_are_averaged_and_missing_metrics_are_dashes(tmp_path):
    write_record(tmp_path, "bottle", 0.8, seed=0)
    write_record(tmp_path, "bottle", 0.9, seed=1)
    write_record(tmp_path, "cable", None)
    table = benchmark_table(collect(tmp_path))
    assert table.loc["bottle", ("image AUROC", "this run")] == pytest.approx(85)
    assert formatted(table).loc["cable"].iloc[0] == DASH


def test_standard_deviation_over_seeds(tmp_path):
    for seed, value in enumerate((0.8, 0.9, 0.85)):
        write_record(tmp_path / "runs", "bottle", value, seed=seed)
    write_record(tmp_path / "runs", "cable", 0.7)
    table = benchmark_table(collect(tmp_path / "runs"))
    assert table.loc["bottle", ("image AUROC", "std")] == pytest.approx(5)
    assert np.isnan(table.loc["cable", ("image AUROC", "std")])
    text = formatted(table)
    assert text.loc["bottle"].iloc[:3].tolist() == ["85.0 ± 5.0", "100.0", "-15.0"]
    assert text.loc["cable"].iloc[0] == "70.0" and text.loc["grid"].iloc[0] == DASH
    write_tables(tmp_path / "runs", tmp_path / "tables")
    name = "mvtec_ad-paper-resnet50.a1_in1k"
    assert "mean ± standard deviation over seeds" in (tmp_path / "tables" / f"{name}.md").read_text()
    assert r"85.0 $\pm$ 5.0 & 100.0 & -15.0" in (tmp_path / "tables" / f"{name}.tex").read_text()
    back = pd.read_csv(tmp_path / "tables" / f"{name}.csv", na_values=DASH).set_index("category")
    assert back.loc["bottle", "image AUROC, std"] == 5


def test_standard_deviation_of_the_mean_is_that_of_whole_data_sets(tmp_path):
    for category in MVTEC_AD_CATEGORIES:
        for seed, value in enumerate((0.8, 0.9)):
            write_record(tmp_path, category, value, seed=seed)
    write_record(tmp_path, "bottle", 0.1, seed=2)  # a third seed of one category is not one of the data set
    table = benchmark_table(collect(tmp_path))
    assert table.loc["mean", ("image AUROC", "std")] == pytest.approx(np.std([80, 90], ddof=1))


def test_figures_of_others_stand_in_a_block_of_their_own_with_their_source(tmp_path):
    figures = peers()
    assert set(figures["dataset"]) == set(CATEGORIES) and set(figures["metric"]) <= set(TITLES)
    assert figures["value"].between(0, 100).all() and (figures["source"] != "").all()
    assert not figures.duplicated(["dataset", "method", "setting", "category", "metric"]).any()
    for dataset, names in CATEGORIES.items():
        assert set(figures[figures["dataset"] == dataset]["category"]) <= {*names, "mean"}
    table = peers_table("mvtec_ad")
    assert table.loc[("EfficientAD-M", "per category"), "AU-PRO 30 %"] == 93.7
    by_category = peers_by_category("mvtec_ad", "image_auroc")
    assert by_category.loc["capsule", "PatchCore, anomalib, WRN-50"] == 98.2

    write_record(tmp_path / "runs", "bottle", 0.985)
    write_record(tmp_path / "runs", "tray", 0.9, dataset="drawn")
    written = write_tables(tmp_path / "runs", tmp_path / "tables")
    assert list(written["mvtec_ad-peers-image_auroc"].index) == [*MVTEC_AD_CATEGORIES, "mean"]
    assert not [name for name in written if name.startswith("drawn-peers")]
    ours, others = (tmp_path / "tables" / "mvtec_ad-paper-resnet50.a1_in1k.md").read_text().split("Other methods, as published")
    assert "EfficientAD" not in ours and "| zipper " in ours
    assert "| EfficientAD-M " in others and "nelson1425/EfficientAD" in others and "this run" not in others


def test_means_of_others_are_means_of_their_categories():
    """Where all categories are published, so that a slip of a digit does not stay."""
    figures = peers()
    for (dataset, method, setting, metric), rows in figures.groupby(["dataset", "method", "setting", "metric"]):
        values = rows.set_index("category")["value"]
        if {"mean", *CATEGORIES[dataset]} <= set(values.index):
            assert values[list(CATEGORIES[dataset])].mean() == pytest.approx(values["mean"], abs=0.15), (
                method,
                setting,
                metric,
            )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs pdflatex")
def test_latex_compiles(tmp_path):
    for category in ("bottle", "metal_nut"):
        for seed in (0, 1):
            write_record(tmp_path / "runs", category, 0.9 + seed / 20, seed=seed)
    write_tables(tmp_path / "runs", tmp_path)
    names = sorted(path.stem for path in tmp_path.glob("*.tex"))
    assert len(names) > 4
    inputs = "".join(f"\\input{{{name}}}\\clearpage\n" for name in names)
    packages = r"\usepackage[a4paper,landscape,margin=1cm]{geometry}\usepackage{booktabs,graphicx}\usepackage[T1]{fontenc}"
    (tmp_path / "all.tex").write_text(rf"\documentclass{{article}}{packages}\begin{{document}}{inputs}\end{{document}}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_files_by_label_and_their_contents(tmp_path):
    write_record(tmp_path / "runs", "bottle", 0.985)
    write_record(tmp_path / "runs", "bottle", 0.5, label="paper, shortened")
    written = write_tables(tmp_path / "runs", tmp_path / "tables")
    name = "mvtec_ad-paper-resnet50.a1_in1k"
    assert {name for name in written if "-peers" not in name} == {name, f"{name}-by_defect"} | {
        f"mvtec_ad-paper_shortened-resnet50.a1_in1k{kind}" for kind in ("", "-by_defect")
    }
    assert {path.stem for path in (tmp_path / "tables").glob("*.csv")} == set(written)
    back = pd.read_csv(tmp_path / "tables" / f"{name}.csv", na_values=DASH).set_index("category")
    assert back.loc["bottle", "image AUROC, this run"] == 98.5
    markdown = (tmp_path / "tables" / f"{name}.md").read_text()
    assert "150 steps" in markdown and "abababababab" in markdown and "900x900" in markdown
    latex = (tmp_path / "tables" / f"{name}.tex").read_text()
    assert r"\toprule" in latex and r"metal\_nut" in latex and "98.5 & 100.0 & -1.5" in latex and DASH not in latex
    defects = (tmp_path / "tables" / f"{name}-by_defect.csv").read_text().splitlines()
    assert defects[1].startswith("bottle,scratch,98.5") and defects[2].startswith("bottle,bent_lead,49.25")


def test_data_set_without_published_numbers_has_no_paper_column(tmp_path):
    write_record(tmp_path, "tray", 0.9, dataset="drawn")
    table = benchmark_table(collect(tmp_path))
    assert list(table.index) == ["tray"]
    assert set(table.columns.get_level_values(1)) == {"this run"}
    assert list(formatted(table).columns) == ["image AUROC", "pixel AUROC", "AU-PRO 30 %", "AU-PRO 5 %"]


def test_of_two_shortened_runs_of_one_seed_the_newest_counts(tmp_path):
    write_record(tmp_path / "runs", "bottle", 0.6, label="paper, shortened", name="a", created="2026-01-02")
    write_record(tmp_path / "runs", "bottle", 0.5, label="paper, shortened", name="b", created="2026-01-01")
    table = write_tables(tmp_path / "runs", tmp_path / "tables")["mvtec_ad-paper_shortened-resnet50.a1_in1k"]
    assert table.loc["bottle", ("image AUROC", "this run")] == pytest.approx(60)


def test_conditions_are_those_of_all_rows_of_the_table_and_of_no_others(tmp_path):
    write_record(tmp_path, "bottle", 0.9)
    encoder = {"name": "resnet50.a1_in1k", "weights_source": "file r50", "weights_sha256": "ab" * 32, "image_size": 256}
    other = {
        "settings": {"batch_size": 8},
        "evaluation_size": None,
        "encoder": encoder,
        "branches": [{"steps": 60}],
        "image_shapes": {"700x700": 3},
        "versions": {"pradot": "0.2.0", "torch": "2", "timm": "1"},
    }
    write_record(tmp_path, "cable", 0.8, created="2026-01-02", **other)
    old = {"versions": {"pradot": "0.0.1", "torch": "1", "timm": "1"}, "settings": {"batch_size": 2}}
    write_record(tmp_path, "bottle", 0.1, name="old", created="2025-01-01", **old)
    write_record(tmp_path, "cable", 0.7, seed=3, name="other", encoder={**encoder, "weights_sha256": "cd" * 32})
    rows = benchmarks(tmp_path)
    assert list(rows) == ["mvtec_ad-paper-resnet50.a1_in1k", "mvtec_ad-paper-resnet50.a1_in1k-cdcdcdcd"]
    said = conditions(rows["mvtec_ad-paper-resnet50.a1_in1k"])
    for part in (
        "resnet50.a1_in1k (file r50, sha256 abababababab) and resnet50.a1_in1k (timm, sha256 abababababab);",
        "images of 700x700, 900x900 px seen by the encoder at 224 x 224 and 256 x 256;",
        "evaluated at 224 x 224 and the images' own size;",
        "60 to 150 steps of at most 8 to 64 images;",
        "seed 0;",
        "pradot 0.1.0 and 0.2.0, torch 2, timm 1.",
    ):
        assert part in said
    assert "seed 3" in conditions(rows["mvtec_ad-paper-resnet50.a1_in1k-cdcdcdcd"])
    written = write_tables(tmp_path, tmp_path / "tables")
    assert {name for name in written if "-by_defect" not in name and "-peers" not in name} == set(rows)
    assert said in (tmp_path / "tables" / "mvtec_ad-paper-resnet50.a1_in1k-by_defect.md").read_text()


def test_errors_name_the_folder(tmp_path):
    with pytest.raises(PradotError, match="no folder of run records"):
        write_tables(tmp_path / "nowhere", tmp_path)
    with pytest.raises(PradotError, match="no run records under"):
        write_tables(tmp_path, tmp_path)
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(PradotError, match=r"other\.json is not a whole run record"):
        write_tables(tmp_path, tmp_path)


def test_loco_is_compared_by_what_the_papers_numbers_are(tmp_path):
    values = dict.fromkeys(METRICS, 0.5) | dict.fromkeys(LOCO_METRICS, 0.6) | {"au_spro_05_224_first": 0.7}
    kinds = {kind: {m: v for m, v in values.items() if m != "image_auroc_types"} for kind in LOCO_TYPES}
    for category in CATEGORIES["mvtec_loco"]:
        write_record(tmp_path, category, None, dataset="mvtec_loco", metrics=values, by_defect=kinds)
    table = benchmark_table(collect(tmp_path))
    assert list(table.index) == [*CATEGORIES["mvtec_loco"], "mean"]
    compared = {title for title, what in table.columns if what == "paper"}
    types, official = "image AUROC, mean of the types", "AU-sPRO 5 % as the paper's code (first mask, 224 x 224)"
    assert compared == {types, official}
    assert table.loc["mean", (types, "difference")] == pytest.approx(60 - 78.9)
    assert table.loc["mean", (official, "difference")] == pytest.approx(70 - 52.6)
    assert table.loc["mean", ("AU-sPRO 5 %", "this run")] == pytest.approx(60)
    written = write_tables(tmp_path, tmp_path / "tables")["mvtec_loco-paper-resnet50.a1_in1k-by_defect"]
    assert written.loc[("pushpins", "logical_anomalies"), "AU-sPRO 5 %"] == pytest.approx(60)
    assert types not in written
