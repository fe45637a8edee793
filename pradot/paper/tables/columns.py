"""What the columns of a data set's tables are, and the paper's numbers for them."""

from importlib.resources import files

import pandas as pd

from pradot.paper.datasets import DATASETS, DOWNLOADED

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


def columns_of(dataset):
    """Metrics of a data set's tables with their titles."""
    return LOCO_COLUMNS | {m: t for m, t in COLUMNS.items() if m != "image_auroc"} if dataset == "mvtec_loco" else COLUMNS


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
