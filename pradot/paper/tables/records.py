"""Run records as rows, and what their numbers depend on."""

import pandas as pd

from pradot.errors import PradotError
from pradot.names import inert
from pradot.paper.records import read_records, slug
from pradot.paper.tables.columns import columns_of


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

    Rows of ablations, runs of other methods and those of drawn training images are left out: their tables are those of
    `pradot.paper.ablations`.

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
    others = rows["record"].map(
        lambda record: bool(record.get("variant")) or "training" in record or "method" in record["settings"]
    )
    groups = rows[~others].groupby(["dataset", "label", "encoder", "weights"], sort=True)
    for (dataset, label, encoder, weights), rows in groups:
        name = f"{slug(dataset)}-{slug(label)}-{slug(encoder)}"
        if name in chosen:  # the same names with other weights
            name = f"{name}-{slug(weights[:8])}"
        chosen[name] = _newest(rows)
    return chosen


def _newest(rows):
    """One record per category and seed: the newest, when settings of a shortened run differ."""
    created = rows["record"].map(lambda record: record["created"])
    return rows.assign(created=created).sort_values("created").groupby(["category", "seed"], sort=False).tail(1)


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


def _range(values):
    values = sorted(set(values))
    return str(values[0]) if len(values) == 1 else f"{values[0]} to {values[-1]}"


def _every(texts):
    return " and ".join(sorted(set(texts)))
