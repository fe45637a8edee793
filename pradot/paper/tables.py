"""Tables from run records: this run, the paper's number, their difference, as CSV, Markdown and LaTeX.

Nothing is computed again here. Numbers in the tables are percent.
"""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pandas as pd

from pradot.errors import PradotError
from pradot.files import replacing
from pradot.names import inert
from pradot.paper.datasets import DATASETS, DOWNLOADED
from pradot.paper.peers import CAPTION as PEERS_CAPTION
from pradot.paper.peers import TITLES as PEERS_TITLES
from pradot.paper.peers import peers_by_category, peers_table
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


def published_table(dataset):
    """The paper's numbers of one data set.

    Returns
    -------
    DataFrame
        Index: category and ``mean``; columns are our names of the metrics that the paper reports. Percent.
    """
    table = published().query("dataset == @dataset").pivot(index="category", columns="metric", values="value")
    ours = {theirs: ours for ours, theirs in PUBLISHED_AS.get(dataset, {}).items()}
    return table.rename(columns=ours)


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
    """Records as `collect` gives them; names as they can be shown anywhere, see `pradot.names.inert`."""
    return pd.DataFrame(
        {
            **dict.fromkeys(columns_of(record["dataset"])),  # of a metric that it lacks
            **record["metrics"],  # before the others: none of them takes another's place
            **{key: inert(record[key]) for key in ("dataset", "category", "label")},
            **{key: record[key] for key in ("seed", "settings")},
            "encoder": inert(record["encoder"]["name"]),
            "weights": inert(record["encoder"]["weights_sha256"]),
            "record": record,
        }
        for record in records
    )


def benchmarks(runs):
    """The records that belong in one table: of one data set, label and encoder, the newest of each category and seed.

    Rows of ablations and runs of other methods are left out: their tables are those of `pradot.paper.ablations`.

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
    others = rows["record"].map(lambda record: bool(record.get("variant")) or "method" in record["settings"])
    groups = rows[~others].groupby(["dataset", "label", "encoder", "weights"], sort=True)
    for (dataset, label, encoder, weights), rows in groups:
        name = f"{slug(dataset)}-{slug(label)}-{slug(encoder)}"
        if name in chosen:  # the same names with other weights
            name = f"{name}-{slug(weights[:8])}"
        chosen[name] = _newest(rows)
    return chosen


def benchmark_table(rows):
    """One benchmark: categories as rows; per metric this run, the paper, the difference.

    Parameters
    ----------
    rows : DataFrame
        One of `benchmarks`.

    Returns
    -------
    DataFrame
        Index: category, then ``mean``. Columns ``(metric, "this run")``, the mean over seeds; ``(metric, "std")``, the standard
        deviation over seeds (with n - 1), when there are several; and where the paper has the metric ``(metric, "paper")`` and
        ``(metric, "difference")``. Percent; NaN where a number is missing. The mean is that of a whole data set or missing.
    """
    dataset = rows["dataset"].iloc[0]
    names = list(CATEGORIES.get(dataset, ()))
    names += sorted(set(rows["category"]) - set(names))
    paper = published_table(dataset)
    table = {}
    for metric, title in columns_of(dataset).items():
        seeds = 100 * rows.astype({metric: float}).groupby(["category", "seed"])[metric].mean().unstack().reindex(names)
        ours = seeds.mean(axis=1)
        ours.loc["mean"] = ours.mean(skipna=False)  # one missing category leaves no mean
        table[title, "this run"] = ours
        if seeds.shape[1] > 1:
            seeds.loc["mean"] = seeds.mean(skipna=False)
            table[title, "std"] = seeds.std(axis=1)
        if metric in paper:
            table[title, "paper"] = paper[metric].reindex(ours.index)
            table[title, "difference"] = ours - table[title, "paper"]
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
            "defect": inert(defect),
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
        *_steps(records),
        f"seed {', '.join(str(seed) for seed in sorted(set(rows['seed'])))}",
        ", ".join(versions),
    ]
    return inert("; ".join(parts) + ".")


def _steps(records):
    """How long was trained; rivals of `pradot.paper.baselines` have no steps."""
    steps = [branch["steps"] for record in records for branch in record["branches"]]
    sizes = [record["settings"]["batch_size"] for record in records if "batch_size" in record["settings"]]
    return [f"{_range(steps)} steps of at most {_range(sizes)} images"] if steps else []


def write_tables(runs, out):
    """Write the tables of all records under a folder.

    Parameters
    ----------
    runs : str or Path
        Folder of records.
    out : str or Path
        Folder of tables: for each of `benchmarks` ``<name>.{csv,md,tex}`` and ``<name>-by_defect.{csv,md,tex}``; for each data
        set that others have published figures of, these as ``<dataset>-peers.{csv,md,tex}``, which also stand under the
        benchmark's table in its ``.md`` and ``.tex``, and by category as ``<dataset>-peers-<metric>.{csv,md,tex}``.

    Returns
    -------
    dict of str to DataFrame
        By file name without ending.
    """
    out, tables, blocks = Path(out), {}, {}
    for name, rows in benchmarks(runs).items():
        dataset = rows["dataset"].iloc[0]
        if dataset not in blocks:
            blocks[dataset] = [(peers_table(dataset), f"{dataset}: {PEERS_CAPTION}")]
        caption = f"{dataset}, percent{_of_seeds(rows)}: {conditions(rows)}"
        tables[name] = benchmark_table(rows)
        write_table(out / name, tables[name], caption, *blocks[dataset])
        tables[f"{name}-by_defect"] = defect_table(rows)
        write_table(out / f"{name}-by_defect", tables[f"{name}-by_defect"], caption)
    for dataset, [block] in blocks.items():
        stem = slug(dataset)
        tables[f"{stem}-peers"] = block[0]
        write_table(out / f"{stem}-peers", *block)
        for metric, title in PEERS_TITLES.items():
            table = peers_by_category(dataset, metric).reindex([*CATEGORIES.get(dataset, ()), "mean"])
            table.index.name = "category"
            tables[f"{stem}-peers-{metric}"] = table
            write_table(out / f"{stem}-peers-{metric}", table, f"{dataset}, {title}: {PEERS_CAPTION}")
    return {name: table for name, table in tables.items() if table.size}


def formatted(table):
    """Table of text: one decimal, ± standard deviation, signs on differences, dashes for what is missing."""
    text = {}
    for column in table.columns:
        title, what = column if isinstance(column, tuple) else (column, "")
        sign = "+" if what == "difference" else ""
        values = [_text(value, sign) for value in table[column]]
        if what == "std":
            pairs = zip(text[title, "this run"], values, strict=True)
            text[title, "this run"] = [mean if std == DASH else f"{mean} ± {std}" for mean, std in pairs]
        else:
            text[column] = values
    text = pd.DataFrame(text, index=table.index)
    if isinstance(table.columns, pd.MultiIndex):
        only = "paper" not in table.columns.get_level_values(1)
        text.columns = [metric if only or what == "this run" else what for metric, what in text.columns]
    return text


def _text(value, sign=""):
    return value if isinstance(value, str) else DASH if np.isnan(value) else f"{value:{sign}.1f}"


def columns_of(dataset):
    """Metrics of a data set's tables with their titles."""
    return LOCO_COLUMNS | {m: t for m, t in COLUMNS.items() if m != "image_auroc"} if dataset == "mvtec_loco" else COLUMNS


def _of_seeds(rows):
    return " (mean ± standard deviation over seeds)" if rows["seed"].nunique() > 1 else ""


def write_table(path, table, caption, *others):
    """Write a table as ``path`` with .csv, .md and .tex after it, the caption above it.

    Parameters
    ----------
    path : Path
    table : DataFrame
        Numbers, and texts as they are; nothing is written of an empty one.
    caption : str
    *others : (DataFrame, str)
        Tables with captions that stand under it in .md and .tex.
    """
    if not table.size:
        return
    tables = [(table, caption), *(pair for pair in others if pair[0].size)]
    flat = table.copy()
    flat.columns = [", ".join(column) if isinstance(column, tuple) else column for column in flat.columns]
    contents = {
        ".csv": flat.round(3).to_csv(na_rep=DASH, lineterminator="\n"),
        ".md": "\n".join(_markdown(table, caption) for table, caption in tables),
        ".tex": "% needs the packages booktabs and graphicx\n" + "\n".join(_latex_table(*pair) for pair in tables),
    }
    for ending, content in contents.items():
        with replacing(path.with_name(path.name + ending)) as temporary:
            temporary.write_text(content)


def _markdown(table, caption):
    align = ["left"] * table.index.nlevels + ["left" if column == "source" else "right" for column in table.columns]
    text = formatted(table).reset_index()
    return f"{caption}\n\n{text.to_markdown(index=False, disable_numparse=True, colalign=align)}\n"


def _latex_table(table, caption):
    columns = "l" * table.index.nlevels + "".join("l" if column == "source" else "r" for column in table.columns)
    text = formatted(table).reset_index().to_latex(index=False, escape=True, column_format=columns, caption=_latex(caption))
    # As wide as the text at most.
    text = text.replace(
        "\\begin{tabular}", "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n\\begin{tabular}"
    )
    return text.replace("\\end{tabular}", "\\end{tabular}}").replace(DASH, "--").replace("±", r"$\pm$")


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
