"""Tables of benchmarks: this run, the paper, the difference; by kind of defect; all of them as files."""

from pathlib import Path

import pandas as pd

from pradot.names import inert
from pradot.paper.peers import CAPTION as PEERS_CAPTION
from pradot.paper.peers import TITLES as PEERS_TITLES
from pradot.paper.peers import peers_by_category, peers_table
from pradot.paper.records import slug
from pradot.paper.tables.columns import CATEGORIES, columns_of, published_table
from pradot.paper.tables.records import benchmarks, conditions
from pradot.paper.tables.text import write_table


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


def _of_seeds(rows):
    return " (mean ± standard deviation over seeds)" if rows["seed"].nunique() > 1 else ""
