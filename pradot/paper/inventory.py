"""What is on disk of the data sets, beside what was published, and what is wrong with it."""

from concurrent.futures import ThreadPoolExecutor
from os import cpu_count
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from pradot.errors import PradotError
from pradot.images import read_image
from pradot.paper.datasets import DATASETS, Category, Counts, Sample, count, find_categories
from pradot.paper.masks import read_defects, read_mask
from pradot.progress import progress_bar


class Finding(NamedTuple):
    """One category."""

    category: str
    counts: Counts | None  # None: its layout cannot be read
    published: Counts | None  # None: no published category
    problems: list[str]  # one line each


def examine(dataset: str, root: str | Path | None = None, *, quick: bool = False, progress: bool = False) -> list[Finding]:
    """Look through a data set.

    Parameters
    ----------
    dataset, root
        As for `pradot.paper.catalogue.find_root`.
    quick : bool
        Only count: no image is opened.
    progress : bool
        Show a progress bar for each category.

    Returns
    -------
    list of Finding
        By category: what is missing of a published one is no problem but a difference of counts. Problems are layouts that
        cannot be read, missing masks, and files that are unreadable, masks of another size than their image or without a
        defect, and in MVTec AD LOCO what `read_defects` refuses.

    Raises
    ------
    PradotError
        If nothing of the data set is there.
    """
    spec, findings = DATASETS[dataset], []
    for name, folder in find_categories(dataset, root).items():
        published = spec.counts.get(name)
        try:
            images = spec.read(folder)
        except PradotError as error:
            findings.append(Finding(name, None, published, [str(error).splitlines()[0]]))
            continue
        problems, anomalous = [], [sample for sample in images.test if sample.is_anomalous]
        bare = [f"{sample.defect}/{sample.path.name}" for sample in anomalous if not sample.masks]
        if bare:
            more = ", ..." if len(bare) > 3 else ""
            problems.append(f"{len(bare)} of {len(anomalous)} masks are missing (of {', '.join(bare[:3])}{more})")
        if not quick:
            normal = [Sample(path, "good", ()) for path in (*images.train, *images.validation)]
            category = Category(dataset, name, folder, (), (), tuple(images.test), ())
            problems += _read_all(category, [*normal, *images.test], progress)
        findings.append(Finding(name, count(images), published, [*images.notes, *problems]))
    return findings


def counts_table(findings: list[Finding]) -> pd.DataFrame:
    """Table of text: images found, the published number in brackets."""
    rows = {}
    for finding in findings:
        found, published = finding.counts or ("?",) * 4, finding.published or ("–",) * 4
        rows[finding.category] = [f"{n} ({m})" for n, m in zip(found, published, strict=True)]
    columns = ["training", "validation", "test, normal", "test, anomalous"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("category")
    return table.loc[:, [column != "validation" or table[column].str.contains("[1-9]").any() for column in columns]]


def _read_all(category: Category, samples: list[Sample], progress: bool) -> list[str]:
    """Problems of images and masks, in the order of the samples."""
    with (
        ThreadPoolExecutor(cpu_count()) as pool,
        progress_bar(len(samples), f"reading {category.name}", "image", progress) as bar,
    ):
        problems = []
        for found in pool.map(lambda sample: _problem(category, sample), samples):
            problems += [] if found is None else [found]
            bar.update()
    return problems


def _problem(category: Category, sample: Sample) -> str | None:
    try:
        shape = read_image(sample.path).shape[:2]
        if sample.masks:
            if category.dataset == "mvtec_loco":
                read_defects(category, sample, shape)
            elif not read_mask(sample, shape).any():
                return f"The mask {sample.masks[0]} shows no defect."
    except PradotError as error:
        return str(error)
    return None
