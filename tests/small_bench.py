"""A benchmark of a few small runs, and what it leaves."""

from dataclasses import replace
from pathlib import Path

from small_data import ENCODER

from pradot.paper.bench import list_jobs
from pradot.paper.presets import PRESETS
from pradot.paper.records import read_records

NAMES = ["bottle", "cable", "own"]
# The whole way through the program in a fraction of a second.
PRESET = replace(PRESETS["fast"], image_size=64, n_prototypes=1, max_steps=2, batch_size=2)


def make_jobs(data, encoder, **changes):
    return list_jobs("mvtec_ad", data, **{"presets": [PRESET], "encoder": encoder, "device": "cpu", "n_seeds": 2} | changes)


def numbers(folder):
    """What a run found, by its file: nothing of when and how fast."""
    return {
        path.relative_to(folder): (record["metrics"], record["images"], path.with_suffix(".safetensors").read_bytes())
        for path, record in read_records(folder).items()
    }


def by_job(found):
    """`numbers` by category and seed: the name of a run's file has the encoder's in it."""
    return {(path.parent.name, path.name.split("-seed")[1][0]): value for path, value in found.items()}


def everything(folder):
    """All files of a folder, hidden ones too."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def files_of(expected):
    return sorted([*expected, *(path.with_suffix(".safetensors") for path in expected)])


LOGGED = f"""{ENCODER}
import os
import pathlib
import time

class Logged(TwoScales):
    '''Writes its process for each pass of more than the probe, and takes its time.'''

    def forward(self, x):
        if len(x) > 1:
            with open(pathlib.Path(__file__).with_suffix(".log"), "a") as log:
                log.write(str(os.getpid()) + "\\n")
            time.sleep(0.3)
        return super().forward(x)

def build():
    return Logged()
"""


PASSES = 2  # of the encoder in a run without cache: training images, test images


def write_logged(folder):
    """Write the encoder's file into a new folder; return what --encoder takes."""
    folder.mkdir()
    (folder / "logged.py").write_text(LOGGED)
    return f"{folder / 'logged.py'}:build"


def passes(logged):
    """The process of each pass so far."""
    log = Path(logged.replace(".py:build", ".log"))
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []
