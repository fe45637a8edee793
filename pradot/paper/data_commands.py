"""What the commands `data`, `data get` and `data add` do and print; see `pradot.paper.commands`."""

from pathlib import Path

from pradot.errors import PradotError
from pradot.names import shown


def data_command(options):
    """Print which data sets are there, and what is wrong with them."""
    from pradot.paper.datasets import DATASETS, DOWNLOADED, data_folder, find_datasets
    from pradot.paper.sources import by_hand

    found = find_datasets(options.root)
    if options.names:
        print("\n".join(found))
        return
    problems = 0
    for name in DOWNLOADED:
        if name in found:
            problems += _show_data(name, found[name], options.quick)
        else:
            folder = data_folder(options.root)
            print(f"{DATASETS[name].title}: not in {folder}; python -m pradot data get {name}\n  {by_hand(name, folder)}\n")
    if problems:
        raise PradotError(f"{problems} problem(s) with the data, listed above")


def _show_data(name, root, quick):
    """Print what is found of one data set; return the number of problems."""
    from pradot.paper.datasets import DATASETS
    from pradot.paper.inventory import counts_table, examine

    findings, n_published = examine(name, root, quick=quick, progress=True), len(DATASETS[name].counts)
    n_found = sum(finding.published is not None for finding in findings)
    print(f"{DATASETS[name].title}: {root}, {n_found} of {n_published} categories; images found (published)\n")
    print(shown(counts_table(findings).to_markdown(disable_numparse=True)) + "\n")
    for finding in findings:
        for problem in finding.problems:
            print(shown(f"  {finding.category}: {problem}"))
    return sum(len(finding.problems) for finding in findings)


def data_get_command(options):
    """Download a data set and print what came."""
    from pradot.paper.archives import get
    from pradot.paper.datasets import data_folder
    from pradot.paper.sources import describe_source

    print(describe_source(options.name, data_folder(options.root)), flush=True)
    _show_data(options.name, get(options.name, options.root, accept_licence=options.accept_licence, progress=True), quick=True)


def data_add_command(options):
    """Unpack an archive and print what it held."""
    from pradot.paper.archives import add
    from pradot.paper.sources import SOURCES, dataset_of

    archive = Path(options.archive)
    verified = dataset_of(archive, progress=True) if archive.is_file() else None
    if archive.is_file() and verified is None:
        starts = ", ".join(f"{source.sha256[:8]} ({name})" for name, source in SOURCES.items())
        print(f"note: the sha256 of {archive} is not that of an official archive, which starts {starts}")
    target = add(archive, options.root, progress=True, verified=verified)
    print(f"unpacked{' and verified' if verified else ''}; {archive} is no longer needed")
    _show_data(target.name, target, quick=True)
