"""Other methods' published figures, copied with their sources; none of them was run here."""

from importlib.resources import files

import pandas as pd

TITLES = {
    "image_auroc": "image AUROC",
    "image_auroc_types": "image AUROC, mean of the types",
    "image_auroc_logical": "logical",
    "image_auroc_structural": "structural",
    "pixel_auroc": "pixel AUROC",
    "au_pro_30": "AU-PRO 30 %",
    "au_spro_05": "AU-sPRO 5 %",
    "au_spro_05_logical": "AU-sPRO 5 %, logical",
    "au_spro_05_structural": "AU-sPRO 5 %, structural",
}
CAPTION = "Other methods, as published, percent; settings and sizes differ, and sources marked * are second hand."


def peers():
    """All figures.

    Returns
    -------
    DataFrame
        Columns ``dataset``, ``method``, ``setting``, ``category`` (or ``mean``), ``metric``, ``value`` in percent, ``kind``
        (``primary``: from the source itself; ``secondary``: quoted by somebody else) and ``source``.
    """
    return pd.read_csv(files("pradot.paper") / "peers.csv", keep_default_na=False)


def peers_table(dataset):
    """The means over a data set.

    Returns
    -------
    DataFrame
        Index (method, setting), a column for each metric, percent, NaN where there is no figure, and ``source``. Empty when
        there are none for the data set.
    """
    found = peers().query("dataset == @dataset and category == 'mean'")
    if found.empty:
        return pd.DataFrame()
    found = found.assign(source=found["source"] + found["kind"].map({"primary": "", "secondary": "*"}))
    table = found.pivot(index=["method", "setting", "source"], columns="metric", values="value")
    table = table[[metric for metric in TITLES if metric in table]].rename(columns=TITLES).rename_axis(columns=None)
    return (
        table.sort_values(list(table.columns), ascending=False).reset_index("source").assign(source=lambda t: t.pop("source"))
    )


def peers_by_category(dataset, metric):
    """One metric of those methods that are published by category.

    Returns
    -------
    DataFrame
        Index: category in the published order, then ``mean``; columns are methods with their settings. Percent.
    """
    found = peers().query("dataset == @dataset and metric == @metric")
    counts = found.groupby(["method", "setting"])["category"].transform("nunique")
    found = found[counts > 1]
    names = found["method"] + (", " + found["setting"]).where(found["setting"] != "", "")
    table = found.assign(name=names).pivot(index="category", columns="name", values="value").rename_axis(columns=None)
    return table
