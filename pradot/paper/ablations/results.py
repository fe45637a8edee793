"""Running an ablation, and its table."""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pradot.errors import PradotError
from pradot.paper.ablations.rows import Ablation
from pradot.paper.bench import Outcome, bench, list_ablation_jobs
from pradot.paper.records import read_record, slug
from pradot.paper.tables import COLUMNS, as_rows, columns_of, conditions, write_table
from pradot.weights import canonical_name, weights_available


class Result(NamedTuple):
    """What came of running an ablation."""

    ablation: Ablation
    outcomes: dict[str, list[Outcome]]  # of every row that could be run, by its label
    reasons: dict[str, str]  # why a row has no numbers, by its label
    rows: pd.DataFrame  # one line per record, as `pradot.paper.tables.collect` gives them, and its row's label as ``row``


def run_ablation(
    ablation, dataset, root, *, out="runs", n_jobs=1, scheduler=None, cache=None, again=False, progress=False, **settings
):
    """Run the rows of an ablation that have no record yet.

    Parameters
    ----------
    ablation : Ablation
    dataset, root
        See `pradot.paper.jobs.list_jobs`.
    out, n_jobs, scheduler, cache, again, progress
        See `pradot.paper.bench.bench`.
    **settings
        See `pradot.paper.jobs.list_ablation_jobs`.

    Returns
    -------
    Result
        A row whose runs failed has the first one's error among the reasons; no other encoder or random weights ever stand in.
    """
    jobs, reasons = {}, {}
    for row, of_row in list_ablation_jobs(ablation, dataset, root, **settings).items():
        missing = missing_weights(row) if row.encoder and not of_row[0].weights else None
        if missing:
            reasons[row.label] = missing
        else:
            jobs[row.label] = of_row
    every = [job for of_row in jobs.values() for job in of_row]
    done = bench(every, out, n_jobs=n_jobs, scheduler=scheduler, cache=cache, again=again, progress=progress)
    by_job = {outcome.job: outcome for outcome in done}
    outcomes = {label: [by_job[job] for job in of_row] for label, of_row in jobs.items()}
    frames = []
    for label, of_row in outcomes.items():
        errors = [outcome.error for outcome in of_row if outcome.error is not None]
        if errors:
            reasons[label] = errors[0]
        else:
            frames.append(as_rows(read_record(outcome.path) for outcome in of_row).assign(row=label))
    return Result(ablation, outcomes, reasons, pd.concat(frames, ignore_index=True) if frames else pd.DataFrame())


def ablation_table(result):
    """One ablation as a table.

    Parameters
    ----------
    result : Result

    Returns
    -------
    DataFrame
        A line per row of the ablation. Columns ``(metric, "this run")``: the mean over the categories, averaged over the seeds,
        in percent; with several seeds ``(metric, "std")``, its standard deviation over them (with n - 1). Then
        ``("marginal error, %", "this run")``, the largest of any branch after its last step of training, and
        ``("fit, s", "this run")``, the mean seconds of a fit, ``("scoring, ms", "this run")``, those of an image without the
        encoder, and ``("model, MB", "this run")``, the mean size of what was learnt. NaN where a number is missing.
    """
    labels = [row.label for row in result.ablation.rows]
    rows = result.rows
    if rows.empty:
        columns = pd.MultiIndex.from_product([COLUMNS.values(), ["this run"]])
        return pd.DataFrame(float("nan"), pd.Index(labels, name=result.ablation.changes), columns)
    table = {}
    for metric, title in columns_of(rows["dataset"].iloc[0]).items():
        by_seed = 100 * rows[metric].astype(float).groupby([rows["row"], rows["seed"]]).mean()
        table[title, "this run"] = by_seed.groupby("row").mean()
        if rows["seed"].nunique() > 1:
            table[title, "std"] = by_seed.groupby("row").std()
    errors = rows["record"].map(lambda record: [branch["marginal_error"] for branch in record["branches"]])
    largest = errors.map(lambda values: float("nan") if None in values or not values else 100 * max(values))
    table["marginal error, %", "this run"] = largest.groupby(rows["row"]).max()
    of_records = {
        "fit, s": lambda record: record["seconds"]["fit"],
        "scoring, ms": lambda record: 1000 * record["seconds"]["scoring"] / max(1, record["counts"]["test"]),
        "model, MB": lambda record: record.get("model_bytes", float("nan")) / 1e6,
    }
    for title, value in of_records.items():
        table[title, "this run"] = rows["record"].map(value).groupby(rows["row"]).mean()
    table = pd.DataFrame(table).reindex(labels)
    table.index.name = result.ablation.changes
    return table


def write_ablation(result, out):
    """Write the table of an ablation as CSV, Markdown and LaTeX.

    Parameters
    ----------
    result : Result
        Of at least one row with numbers.
    out : str or Path
        Folder of tables; the file's name is ``<dataset>-ablation_<name>-<base>-<encoder>``. Seconds are not written: they would
        differ each time.

    Returns
    -------
    Path
        Without the ending.

    Raises
    ------
    PradotError
        No row has numbers.
    """
    ablation, rows = result.ablation, result.rows
    if rows.empty:
        reasons = "; ".join(dict.fromkeys(result.reasons.values()))
        raise PradotError(f"no row of the ablation {ablation.name} has numbers: {reasons}")
    dataset, encoders = rows["dataset"].iloc[0], sorted(set(rows["encoder"]))
    name = [
        slug(dataset),
        f"ablation_{ablation.name}",
        slug(ablation.base.label),
        *map(slug, encoders if len(encoders) == 1 else []),
    ]
    # The base stands for all: the rows' labels are in the table.
    of_base = rows.assign(record=rows["record"].map(lambda record: {**record, "label": ablation.base.label}))
    caption = (
        f"{ablation.question} {dataset} ({', '.join(sorted(set(rows['category'])))}), percent: {conditions(of_base)}"
        + "".join(f" {label}: {reason}." for label, reason in result.reasons.items())
    )
    path = Path(out) / "-".join(name)
    write_table(path, ablation_table(result).drop(columns=["fit, s", "scoring, ms"], level=0), caption)
    return path


def missing_weights(row):
    """Why the weights of a row's own encoder cannot be had, in one line; None when they can, or when it has none of its own."""
    if row.encoder is None:
        return None
    available, why = weights_available(row.encoder)
    return None if available else f"the weights of {canonical_name(row.encoder)} cannot be had ({why})"
