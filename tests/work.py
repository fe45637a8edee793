"""Kinds of work in processes of their own, and what each leaves: to be killed, stopped, doubled and compared."""

import hashlib
import json
import time

import nbformat
import numpy as np
from commands import wait_for
from PIL import Image
from safetensors import safe_open
from small_data import ENCODER

from pradot.sealed import read_metadata

N_IMAGES = {"n_train": 5, "n_good": 2, "n_bad": 2}
NAMES = ("bottle", "own")

# As the other tests' encoder, but it takes the seconds for each pass that PRADOT_TEST_SLOW names, and says when it begins one.
SLOW = f"""{ENCODER}
import os
import time
from pathlib import Path

class Slow(TwoScales):
    def forward(self, x):
        if "PRADOT_TEST_SLOW" in os.environ:
            with open(Path(__file__).with_suffix(".log"), "a") as log:
                log.write(f"{{os.getpid()}}\\n")
            time.sleep(float(os.environ["PRADOT_TEST_SLOW"]))
        return super().forward(x)

def build():
    return Slow()
"""


FEATURES = """
import torch
from pradot import Encoder
from pradot.images import find_images
from pathlib import Path
wide = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 4, stride=4), torch.nn.ReLU())  # files that take a while to write
torch.nn.init.constant_(wide[0].weight, 0.1)
torch.nn.init.constant_(wide[0].bias, 0.1)
encoder = Encoder.from_module(wide, "wide", scales=(1,), image_size=256)
for name in ("bottle", "own"):
    images = find_images(Path({data!r}) / name / "train" / "good")
    encoder.features(images * 8, cache="cache")
    encoder.features(images * 8, cache="cache")
"""
NOTEBOOK = [
    "root = None\nencoder = None",
    "from dataclasses import replace\n"
    "from pradot import Encoder\nfrom pradot.paper.presets import PRESETS\n"
    "from pradot.paper.runs import run\nfrom pradot.paper.tables import write_tables\n"
    'preset = replace(PRESETS["fast"], image_size=64, n_prototypes=1, max_steps=2, batch_size=2)',
    'record, path, _ = run("mvtec_ad", root, "own", preset, Encoder(encoder, image_size=64), out="../runs", cache="../cache")\n'
    'print(record["metrics"])',
    'for name in write_tables("../runs", "../tables"):\n    print(name)',
]


class Work:
    """A kind of work in a folder of its own, with `arguments`: `start` it, and `state` says what it has left."""

    kind, out = "", ("cache", "models", "runs")

    def __init__(self, starter, place):
        self.starter, self.place = starter, place
        self.data, self.encoder = place / "data", f"{place / 'slow.py'}:build"
        self.settings = ["--preset", "fast", "--encoder", self.encoder, "--device", "cpu"]
        self.settings += ["--max-steps", 2, "--batch-size", 2]

    def prepare(self, folder):
        pass

    def start(self, folder, first="", env=None, extra=()):
        folder.mkdir(parents=True, exist_ok=True)
        self.prepare(folder)
        env = {"PRADOT_CACHE": str(folder / "cache")} | (env or {})
        return self.starter.start(folder, *self.arguments(), *extra, first=first, env=env)

    def state(self, folder):
        return {str(path.relative_to(folder)): found for path, found in contents(folder, self.out).items()}


class Run(Work):
    kind = "run"

    def arguments(self):
        return ["run", "--dataset", "mvtec_ad", "--root", self.data, *self.settings, "--out", "runs", "--save-model", "models"]


class Bench(Work):
    kind = "bench"
    n_jobs, n_seeds = 1, 3

    def arguments(self):
        seeds = ["--seeds", self.n_seeds, "--jobs", self.n_jobs]
        return ["bench", "--dataset", "mvtec_ad", "--root", self.data, *self.settings, "--out", "runs", *seeds]


class BenchOfTwo(Bench):
    kind, n_jobs = "bench --jobs 2", 2


class Tables(Work):
    kind, out = "tables", ("tables",)

    def arguments(self):
        return ["tables", "--runs", self.place / "made" / "runs", "--out", "tables"]

    def prepare(self, folder):
        if not (self.place / "made").exists():
            done = Bench(self.starter, self.place)
            assert done.start(self.place / "made").wait().status == 0


class Notebooks(Work):
    kind, out = "notebooks", ("build", "runs", "tables", "cache")

    def arguments(self):
        return ["notebooks", "-p", "root", self.data, "-p", "encoder", self.encoder]

    def prepare(self, folder):
        path = folder / "notebooks" / "00_only.ipynb"
        if path.exists():
            return
        path.parent.mkdir()
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in NOTEBOOK])
        notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
        notebook.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(notebook, path)

    def start(self, folder, first="", env=None, extra=()):
        there = (
            f"from pathlib import Path; import pradot.paper.notebooks as n; n.project_root = lambda: Path({str(folder)!r})\n"
        )
        return super().start(folder, there + first, env, extra)


class Features(Work):
    kind, out = "features", ("cache",)

    def start(self, folder, first="", env=None, extra=()):
        folder.mkdir(parents=True, exist_ok=True)
        return self.starter.start(folder, first=first, code=FEATURES.format(data=str(self.data)), env=env)


WORK = {work.kind: work for work in (Run, Bench, BenchOfTwo, Tables, Notebooks, Features)}


def contents(folder, parts):
    """What each file under some folders holds, without when and how fast it was made; each is read, so that it is whole."""
    return {path: _content(path) for part in parts for path in sorted((folder / part).rglob("*")) if path.is_file()}


def _content(path):
    if path.suffix == ".json" and "branches" in (record := json.loads(path.read_text())) and "metrics" in record:
        for key in ("seconds", "created", "peak_memory_gb", "sha256"):  # the last is over all others
            record.pop(key)
        record["notes"] = [note for note in record["notes"] if "were learned before" not in note]
        return record
    if path.suffix == ".safetensors":
        with safe_open(path, framework="np") as file:
            about = {name: json.loads(text) for name, text in read_metadata(path).items()}
            about.get("learned", {}).pop("seconds", None)
            return about, {key: (file.get_tensor(key).shape, _hash(file.get_tensor(key))) for key in file.keys()}
    if path.suffix == ".png":
        return _hash(np.asarray(Image.open(path)))
    if path.suffix == ".ipynb":
        cells = nbformat.read(path, as_version=4).cells
        return [[cell.source, [dict(output) for output in cell.get("outputs", ())]] for cell in cells]
    return path.read_bytes()


def _hash(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def leftovers(folder):
    """Hidden files and folders."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob(".*"))


def assert_as_undisturbed(work, folder, expected):
    found = work.state(folder)
    kept = {name: content for name, content in found.items() if not name.endswith(".lock")}
    assert sorted(kept) == sorted(expected)
    assert kept == expected
    # Where a process is killed between a file's taking its place and the end of the block that made it, nobody makes the file
    # again, and an empty lock and an empty folder stay: at most one of each a kill, never read.
    for name in leftovers(folder):
        left = folder / name
        assert not (left.stat().st_size if left.is_file() else list(left.iterdir())), name
    return len(leftovers(folder))


def start_again(work, folder, expected):
    again = work.start(folder).wait()
    assert again.status == 0, again.said
    return assert_as_undisturbed(work, folder, expected)


class Undisturbed:
    """What each kind of work leaves when nobody disturbs it, and the seconds it takes."""

    def __init__(self, starter, place, tmp_path_factory):
        self.starter, self.place, self.tmp, self.found = starter, place, tmp_path_factory, {}

    def __call__(self, kind):
        work = WORK[kind](self.starter, self.place)
        if kind not in self.found:
            folder = self.tmp.mktemp("undisturbed")
            work.prepare(folder)
            command = work.start(folder)  # which waits for the common parent to be ready
            start = time.monotonic()
            done = command.wait()
            seconds = time.monotonic() - start
            assert done.status == 0, done.said
            assert leftovers(folder) == []
            self.found[kind] = work.state(folder), seconds
            assert self.found[kind][0]
        return work, *self.found[kind]


STOPPED = "pradot: stopped; what is finished stays and is not done again\n"


def assert_stopped(command, status=130):
    """It ends soon, with a line and without a traceback, and leaves no process."""
    start = time.monotonic()
    assert command.wait(60).status == status, command.said
    seconds = time.monotonic() - start
    assert command.said.endswith(STOPPED), command.said
    assert not any(word in command.said for word in ("Traceback", "Error", "Warning", "warning")), command.said
    wait_for(lambda: not command.starter.living(), 5)
    return seconds
