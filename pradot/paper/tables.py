"""Tables from run records: this run, the paper's number, their difference, as CSV, Markdown and LaTeX.

Nothing is computed again here. Numbers in the tables are percent.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from pradot.errors import PradotError
from pradot.files import replacing
from pradot.paper.datasets import DATASETS, DOWNLOADED
from pradot.paper.runs import read_records, slug

DASH = "–"
COLUMNS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "au_pro_30": "AU-PRO 30 %",
    "au_pro_05": "AU-PRO 5 %",
}
LOCO_COLUMNS = {
    "image_auroc_types": "image AUROC, mean of the types",
    "image_auroc": "image AUROC, all images",
    "au_spro_05": "AU-sPRO 5 %",
    "au_spro_05_224_first": "AU-sPRO 5 % as the paper's code (first mask, 224 x 224)",
    "au_spro_05_224_merged": "AU-sPRO 5 %, masks merged, 224 x 224",
}
PUBLISHED_AS = {"mvtec_loco": {"image_auroc_types": "image_auroc", "au_spro_05_224_first": "au_spro_05"}}
"""Where the paper's number of a name is another metric than ours of that name."""
CATEGORIES = {name: tuple(DATASETS[name].counts) for name in DOWNLOADED}  # in the published order; a mean needs them all


def published():
    """The paper's numbers.

    Returns
    -------
    DataFrame
        Columns ``dataset``, ``category`` (or ``mean``), ``metric``, ``value`` in percent, from arXiv 2508.12927's repository
        (method.md).
    """
    return pd.read_csv(files("pradot.paper") / "published.csv")


def collect(runs):
    """All records under a folder as one row each.

    Returns
    -------
    DataFrame
        ``dataset``, ``category``, ``label``, ``encoder``, ``seed``, the metrics as fractions, and the whole ``record``.
    """
    records = read_records(runs).values()
    if not records:
        raise PradotError(f"no run records under {runs}: make some with `python -m pradot run`")
    return as_rows(records)


def as_rows(records):
    """Records as `collect` gives them."""
    return pd.DataFrame(
        {
            **{key: record[key] for key in ("dataset", "category", "label", "seed", "settings")},
            "encoder": record["encoder"]["name"],
            "weights": record["encoder"]["weights_sha256"],
            **record["metrics"],
            "record": record,
        }
        for record in records
    )


def benchmarks(runs):
    """The records that belong in one table: of one data set, label and encoder, the newest of each category and seed.

    Parameters
    ----------
    runs : str or Path
        Folder of records.

    Returns
    -------
    dict of str to DataFrame
        Rows of `collect` by the name of their table, ``<dataset>-<label>-<encoder>``.
    """
    chosen = {}
    rows = collect(runs)
    of_ablations = rows["record"].map(lambda record: bool(record.get("variant")))  # their tables are `pradot.paper.ablations`'
    groups = rows[~of_ablations].groupby(["dataset", "label", "encoder", "weights"], sort=True)
    for (dataset, label, encoder, weights), rows in groups:
        name = f"{dataset}-{slug(label)}-{slug(encoder)}"
        if name in chosen:  # the same names with other weights
            name = f"{name}-{weights[:8]}"
        chosen[name] = _newest(rows)
    return chosen


def benchmark_table(rows):
    """One benchmark: categories as rows; per metric this run, the paper, the difference.

    Parameters
    ----------
    rows : DataFrame
        One of `benchmarks`. Several seeds of a category are averaged.

    Returns
    -------
    DataFrame
        Index: category, then ``mean``. Columns ``(metric, "this run")``, and where the paper has the metric
        ``(metric, "paper")`` and ``(metric, "difference")``. Percent; NaN where a number is missing. The mean is that of a
        whole data set or missing.
    """
    dataset = rows["dataset"].iloc[0]
    columns = columns_of(dataset)
    names = list(CATEGORIES.get(dataset, ()))
    names += sorted(set(rows["category"]) - set(names))
    ours = 100 * rows.groupby("category")[list(columns)].mean().astype(float).reindex(names)
    ours.loc["mean"] = ours.mean(skipna=False)  # one missing category leaves no mean
    paper = published().query("dataset == @dataset").pivot(index="category", columns="metric", values="value")
    table = {}
    for metric, title in columns.items():
        table[title, "this run"] = ours[metric]
        name = PUBLISHED_AS.get(dataset, {metric: metric}).get(metric)
        if name in paper:
            theirs = paper[name].reindex(ours.index)
            table[title, "paper"] = theirs
            table[title, "difference"] = ours[metric] - theirs
    table = pd.DataFrame(table)
    table.index.name = "category"
    return table if len(names) > 1 else table.drop(index="mean")


def defect_table(rows):
    """Metrics of each kind of defect beside all normal images of its category.

    Parameters
    ----------
    rows : DataFrame
        As for `benchmark_table`.

    Returns
    -------
    DataFrame
        Index (category, defect), columns as in `benchmark_table` as far as they are of single kinds of defects, percent.
    """
    columns = columns_of(rows["dataset"].iloc[0])
    found = [
        {
            "category": row["category"],
            "defect": defect,
            **{title: values[metric] for metric, title in columns.items() if metric in values},
        }
        for _, row in rows.iterrows()
        for defect, values in row["record"]["by_defect"].items()
    ]
    if not found:
        return pd.DataFrame()
    return 100 * pd.DataFrame(found).groupby(["category", "defect"], sort=False).mean().astype(float)


def conditions(rows):
    """What the numbers of some rows of `collect` depend on, in one sentence; where the rows differ it names all values."""
    records = list(rows["record"])
    encoders = [record["encoder"] for record in records]
    shapes = sorted({shape for record in records for shape in record["image_shapes"]})
    sizes = [record["evaluation_size"] for record in records]
    versions = [f"{name} {_every(r['versions'][name] for r in records)}" for name in ("pradot", "torch", "timm")]
    parts = [
        f"preset {_every(record['label'] for record in records)}",
        "encoder " + _every(f"{e['name']} ({e['weights_source']}, sha256 {e['weights_sha256'][:12]})" for e in encoders),
        f"images of {', '.join(shapes[:3])}{' and others' if len(shapes) > 3 else ''} px "
        "seen by the encoder at " + _every("{image_size} x {image_size}".format(**encoder) for encoder in encoders),
        "evaluated at " + _every(f"{size} x {size}" if size else "the images' own size" for size in sizes),
        f"{_range(branch['steps'] for record in records for branch in record['branches'])} steps "
        f"of at most {_range(record['settings']['batch_size'] for record in records)} images",
        f"seed {', '.join(str(seed) for seed in sorted(set(rows['seed'])))}",
        ", ".join(versions),
    ]
    return "; ".join(parts) + "."


def write_tables(runs, out):
    """Write the tables of all records under a folder.

    Parameters
    ----------
    runs : str or Path
        Folder of records.
    out : str or Path
        Folder of tables: for each of `benchmarks` ``<name>.{csv,md,tex}`` and ``<name>-by_defect.{csv,md,tex}``.

    Returns
    -------
    dict of str to DataFrame
        By file name without ending.
    """
    tables = {}
    for name, rows in benchmarks(runs).items():
        for kind, table in (("", benchmark_table(rows)), ("-by_defect", defect_table(rows))):
            if len(table):
                tables[name + kind] = table
                write_table(Path(out) / (name + kind), table, f"{rows['dataset'].iloc[0]}, percent: {conditions(rows)}")
    return tables


def formatted(table):
    """Table of text: one decimal, signs on differences, dashes for what is missing."""
    text = pd.DataFrame(index=table.index, columns=table.columns, dtype=object)
    for column in table.columns:
        sign = "+" if "difference" in column else ""
        text[column] = [DASH if np.isnan(value) else f"{value:{sign}.1f}" for value in table[column]]
    if isinstance(text.columns, pd.MultiIndex):
        only = "paper" not in text.columns.get_level_values(1)
        text.columns = [metric if only or what == "this run" else f"{what}" for metric, what in text.columns]
    return text


def columns_of(dataset):
    """Metrics of a data set's tables with their titles."""
    return LOCO_COLUMNS | {m: t for m, t in COLUMNS.items() if m != "image_auroc"} if dataset == "mvtec_loco" else COLUMNS


def write_table(path, table, caption):
    """Write a table of numbers as ``path`` with .csv, .md and .tex after it; the caption goes above it."""
    text = formatted(table).reset_index()
    flat = table.copy()
    flat.columns = [", ".join(column) if isinstance(column, tuple) else column for column in table.columns]
    columns = "l" * table.index.nlevels + "r" * len(table.columns)
    latex = text.to_latex(index=False, escape=True, column_format=columns, caption=_latex(caption)).replace(DASH, "--")
    contents = {
        ".csv": flat.round(3).to_csv(na_rep=DASH, lineterminator="\n"),
        ".md": f"{caption}\n\n{text.to_markdown(index=False, disable_numparse=True, colalign=_align(table))}\n",
        ".tex": f"% needs the package booktabs\n{latex}",
    }
    for ending, content in contents.items():
        with replacing(path.with_name(path.name + ending)) as temporary:
            temporary.write_text(content)


def _align(table):
    return ["left"] * table.index.nlevels + ["right"] * len(table.columns)


def _latex(text):
    for sign in "_%&#":
        text = text.replace(sign, f"\\{sign}")
    return text


def _newest(rows):
    """One record per category and seed: the newest, when settings of a shortened run differ."""
    created = rows["record"].map(lambda record: record["created"])
    return rows.assign(created=created).sort_values("created").groupby(["category", "seed"], sort=False).tail(1)


def _range(values):
    values = sorted(set(values))
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _every(texts):
    return " and ".join(sorted(set(texts)))
