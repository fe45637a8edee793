"""Do runs in the paper's own setting give the published numbers? Tolerances are data: ``tolerances.csv``."""

from importlib.resources import files

import numpy as np
import pandas as pd

from pradot.errors import PradotError
from pradot.paper.datasets import DATASETS
from pradot.paper.identity import recorded_settings
from pradot.paper.presets import PRESETS
from pradot.paper.tables import CATEGORIES, collect, published_table
from pradot.weights import PAPER_ENCODER

# Sides of the published images, height x width; another size is a resized copy.
SHAPES = {
    **dict.fromkeys(("carpet", "grid", "leather", "wood", "cable", "hazelnut", "screw", "toothbrush"), "1024x1024"),
    **dict.fromkeys(("transistor", "zipper"), "1024x1024"),
    **{"tile": "840x840", "bottle": "900x900", "capsule": "1000x1000", "metal_nut": "700x700", "pill": "800x800"},
    **{"breakfast_box": "1280x1600", "juice_bottle": "1600x800", "pushpins": "1000x1700", "screw_bag": "1100x1600"},
    "splicing_connectors": "850x1700",
}


def tolerances():
    """How far a number may be from the published one.

    Returns
    -------
    DataFrame
        Columns ``dataset``, ``category`` (``any``: those without a line of their own, but not ``mean``), ``metric``,
        ``tolerance`` in points (NaN: the number does not compare) and ``why``.
    """
    return pd.read_csv(files("pradot.paper") / "tolerances.csv")


def departures(record):
    """What of a run is not the paper's own setting, in words; empty when nothing is.

    Parameters
    ----------
    record : dict
        See `pradot.paper.records.read_record`.

    Returns
    -------
    list of str
    """
    paper, found = PRESETS["paper"], []
    settings = recorded_settings(paper)
    if record["label"] != paper.label:
        found.append(f"preset {record['label']}")
    elif record["settings"] != settings or record["evaluation_size"] != paper.evaluation_size:
        names = settings | record["settings"]
        changed = sorted(name for name in names if record["settings"].get(name) != settings.get(name))
        found.append(f"settings are not those of the preset paper: {', '.join(changed) or 'others'}")
    if record["encoder"]["name"] != PAPER_ENCODER or record["encoder"]["image_size"] != paper.image_size:
        found.append(f"encoder {record['encoder']['name']} at {record['encoder']['image_size']} px")
    dataset, category = record["dataset"], record["category"]
    counts = DATASETS[dataset].counts.get(category) if dataset in DATASETS else None
    if counts is not None:
        n = record.get("counts", {})
        images = (n.get("train", 0) + n.get("validation", 0), n.get("test"), n.get("test_anomalous"))
        if images != (counts.train + counts.validation, counts.normal + counts.anomalous, counts.anomalous):
            found.append("not the published images: {} for training, {} for test, {} of these anomalous".format(*images))
    if category in SHAPES and list(record["image_shapes"]) != [SHAPES[category]]:
        found.append(f"images of {', '.join(record['image_shapes'])} px, published are {SHAPES[category]}")
    return found


def verify(runs, datasets=None, categories=None):
    """Compare the records under a folder with the published numbers.

    Parameters
    ----------
    runs : str or Path
        Folder of records.
    datasets, categories : sequence of str, optional
        Which of them; all by default.

    Returns
    -------
    DataFrame
        A line per data set, category (and mean of those that compare, when they are all there) and published metric: ``this
        run``, the mean over the seeds of the runs in the paper's own setting; ``paper``; ``difference``; ``tolerance``;
        ``verdict``: ``within``, ``OFF`` or ``not comparable``; ``why`` the tolerance is what it is.
    others : list of str
        Runs that do not count, with the reason.

    Raises
    ------
    PradotError
        There are no records, or nothing could be compared.
    """
    rows = collect(runs)
    for column, chosen in {"dataset": datasets, "category": categories}.items():
        rows = rows[rows[column].isin(chosen)] if chosen else rows
    rows = rows.assign(departures=rows["record"].map(departures))
    rows = rows.assign(has_numbers=rows["dataset"].isin(list(CATEGORIES)))
    others = []
    for _, row in rows.iterrows():
        reasons = row["departures"] if row["has_numbers"] else ["nothing is published for this data set"]
        if reasons:
            name = f"{row['dataset']} {row['category']}, {row['label']}, {row['encoder']}, seed {row['seed']}"
            others.append(f"{name}: {'; '.join(reasons)}")
    own = rows[rows["has_numbers"] & ~rows["departures"].map(bool)]
    lines = [line for dataset, of_one in own.groupby("dataset") for line in _compare(dataset, of_one)]
    if not any(line["verdict"] != "not comparable" for line in lines):
        listed = "".join(f"\n  {other}" for other in others)
        raise PradotError(
            f"nothing was compared: no run under {runs} is in the paper's own setting (preset paper, not shortened, encoder "
            f"{PAPER_ENCODER}, the published images){listed}"
        )
    return pd.DataFrame(lines), others


def _compare(dataset, rows):
    paper, allowed = published_table(dataset), tolerances().query("dataset == @dataset").set_index(["category", "metric"])
    for metric in paper:
        ours = 100 * rows.astype({metric: float}).groupby("category")[metric].mean().dropna()
        theirs = paper[metric]
        rules = {name: allowed.loc[(name if (name, metric) in allowed.index else "any", metric)] for name in theirs.index}
        for category in theirs.index.intersection(ours.index):
            yield _line(dataset, category, metric, ours[category], theirs[category], rules[category])
        compared = [name for name in CATEGORIES[dataset] if not np.isnan(rules[name]["tolerance"])]
        if set(compared) <= set(ours.index):  # the same categories on both sides
            name = "mean" if len(compared) == len(CATEGORIES[dataset]) else f"mean of {len(compared)}"
            yield _line(dataset, name, metric, ours[compared].mean(), theirs[compared].mean(), rules["mean"])


def _line(dataset, category, metric, ours, theirs, rule):
    # Published numbers have one decimal: their last half digit is not ours to meet.
    within = abs(ours - theirs) <= rule["tolerance"] + 0.05
    return {
        "dataset": dataset,
        "category": category,
        "metric": metric,
        "this run": ours,
        "paper": theirs,
        "difference": ours - theirs,
        "tolerance": rule["tolerance"],
        "verdict": "not comparable" if np.isnan(rule["tolerance"]) else "within" if within else "OFF",
        "why": rule["why"],
    }
