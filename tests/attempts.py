"""What the tests of bad input share: a quick fit, and commands whose every word is looked at.

Bad input is each an error that names the file or setting and the remedy, or the right answer: test_bad_images, test_bad_masks,
test_bad_folders, test_bad_features, test_bad_settings, test_changed_files, test_no_room. What is attacked elsewhere: reading
single images (test_images), layouts, split files and saturations (test_datasets, test_layouts), archives (test_archives,
test_unpacking), models (test_saved), weights and modules (test_weights, test_modules), wrong usage (test_cli).
"""

from pathlib import Path

from small_data import write_encoder

from pradot.cli import main
from pradot.paper.records import read_record

NAN, INF = float("nan"), float("inf")
QUICK = {"n_prototypes": 1, "n_epochs": 1, "batch_size": 2, "n_iter": 5, "branches": [(3, 0.3)]}


def attempt(capsys, *arguments):
    """Exit status of a command, what it printed, and its one error line, which must be all that stderr holds."""
    capsys.readouterr()
    status = main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    assert status in (0, 1) and len(lines) == status and all(line.startswith("pradot: ") for line in lines)
    return status, printed.out, "".join(lines)


def run_folder(capsys, folder, *more):
    """Run the shortest of runs on a folder of images, see `attempt`."""
    tiny = ["--preset", "fast", "--encoder", write_encoder(Path.cwd()), "--max-steps", 1, "--batch-size", 2, "--device", "cpu"]
    return attempt(capsys, "run", "--dataset", "folder", "--root", folder, *tiny, *more)


def records(folder="runs"):
    """All records in a folder, in the order of their names."""
    return [read_record(path) for path in sorted(Path(folder).rglob("*.json"))]
