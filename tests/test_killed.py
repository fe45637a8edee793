"""Killed at any moment, started again; two at once; stopped: no record lost or doubled, every file whole, same numbers.

`PRADOT_KILLS` is the number of seeded random moments at which each kind of work is killed in the slow tests (20).
"""

import hashlib
import json
import os
import signal
import time
from pathlib import Path

import nbformat
import numpy as np
import pytest
from commands import Starter, wait_for
from PIL import Image
from safetensors import safe_open
from small_data import ENCODER, write_category
from test_archives import Server, digest, pack, write_loco_category

from pradot.paper.watch import LATE_AFTER, LATE_FIRST, LATE_TIMES, Watch
from pradot.progress import progress_bar
from pradot.sealed import read_metadata

N_KILLS = int(os.environ.get("PRADOT_KILLS", 20))
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


@pytest.fixture(scope="module")
def starter():
    starter = Starter()
    yield starter
    starter.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with data and an encoder."""
    place = tmp_path_factory.mktemp("place")
    for seed, name in enumerate(NAMES):
        write_category(place / "data", name, seed=seed, **N_IMAGES)
    (place / "slow.py").write_text(SLOW)
    return place


@pytest.fixture
def log(place):
    """The processes of the encoder's passes in this test."""
    path = place / "slow.log"
    path.unlink(missing_ok=True)
    return lambda: [int(line) for line in path.read_text().split()] if path.exists() else []


# ------------------------------------------------------------------------------------------------------------ the kinds of work

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


class Undisturbed:
    """What each kind of work leaves when nobody disturbs it, and the seconds it takes."""

    def __init__(self, starter, place, tmp_path_factory):
        self.starter, self.place, self.tmp, self.found = starter, place, tmp_path_factory, {}

    def __call__(self, kind):
        work = WORK[kind](self.starter, self.place)
        if kind not in self.found:
            folder = self.tmp.mktemp("undisturbed")
            work.prepare(folder)
            start = time.monotonic()
            done = work.start(folder).wait()
            seconds = time.monotonic() - start
            assert done.status == 0, done.said
            assert leftovers(folder) == []
            self.found[kind] = work.state(folder), seconds
            assert self.found[kind][0]
        return work, *self.found[kind]


@pytest.fixture(scope="module")
def undisturbed(starter, place, tmp_path_factory):
    return Undisturbed(starter, place, tmp_path_factory)


# ----------------------------------------------------------------------------------------------------------------------- killed

# Ends its process at the n-th file that takes its place, before or after it does.
AT_FILE = """
import os, signal
_replace, _count = os.replace, []
def replace_(*arguments, **settings):
    _count.append(1)
    if len(_count) == {n} and not {after}:
        os.kill(os.getpid(), signal.SIGKILL)
    _replace(*arguments, **settings)
    if len(_count) == {n}:
        os.kill(os.getpid(), signal.SIGKILL)
os.replace = replace_
"""


def kill_at(moment, work, folder):
    """Start, kill after some seconds; whether it was running still."""
    command = work.start(folder)
    time.sleep(moment)
    return command.kill()


def start_again(work, folder, expected):
    again = work.start(folder).wait()
    assert again.status == 0, again.said
    return assert_as_undisturbed(work, folder, expected)


def moments_of(kind, seconds, n):
    """Seeded random moments, one in each n-th part of the time."""
    rng = np.random.default_rng(list(kind.encode()))
    return (np.arange(n) + rng.random(n)) / n * seconds


def kill_and_start_again(kind, n, undisturbed, tmp_path):
    work, expected, seconds = undisturbed(kind)
    n_hit = n_files = n_half = n_empty = 0
    for number, moment in enumerate(moments_of(kind, seconds, n)):
        folder = tmp_path / f"{number}"
        n_hit += kill_at(moment, work, folder)
        left = leftovers(folder) if folder.exists() else []
        n_half += any(".partial" in name for name in left)
        for path, _ in contents(folder, work.out).items():  # whole already
            n_files += not any(part.startswith(".") for part in path.relative_to(folder).parts)
        n_empty += start_again(work, folder, expected)
    n_records = sum(name.startswith("runs") and name.endswith(".json") for name in expected)
    print(
        f"\n{kind}: {seconds:.1f} s undisturbed; {n_hit} of {n} kills hit it, {n_half} in the middle of writing; {n_files} "
        f"files were whole then; started again {n} times: each time {len(expected)} files, {n_records} of them records, each "
        f"once and as undisturbed; left over: {n_empty} empty hidden files and folders"
    )
    assert n_hit > n / 2  # a busy machine is not as fast each time


def kill_at_each_file(kind, undisturbed, tmp_path, numbers=None):
    work, expected, _ = undisturbed(kind)
    n_kills = n_empty = 0
    for number in numbers or range(1, 1000):
        for after in (False, True):
            folder = tmp_path / f"file-{number}-{after}"
            status = work.start(folder, first=AT_FILE.format(n=number, after=after)).wait().status
            if status == 0 and numbers is None:
                assert n_kills >= 4
                print(
                    f"\n{kind}: killed before and after each of {number - 1} files takes its place; left over: {n_empty}, empty"
                )
                return
            assert status == -signal.SIGKILL
            n_kills += 1
            contents(folder, work.out)
            n_empty += start_again(work, folder, expected)


def test_killed_at_random_moments_and_started_again(undisturbed, tmp_path):
    kill_and_start_again("run", 3, undisturbed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("kind", WORK)
def test_killed_at_many_random_moments_and_started_again(kind, undisturbed, tmp_path):
    kill_and_start_again(kind, N_KILLS, undisturbed, tmp_path)


def test_killed_at_a_file_and_started_again(undisturbed, tmp_path):
    kill_at_each_file("run", undisturbed, tmp_path, [7])  # the model: its tensors are there, its settings not


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "bench", "tables", "features"])
def test_killed_at_each_file_and_started_again(kind, undisturbed, tmp_path):
    kill_at_each_file(kind, undisturbed, tmp_path)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_file(undisturbed, tmp_path):
    """Features: the library writes a file of its own beside the one that it is told to."""
    work, expected, _ = undisturbed("features")
    for number in range(5):
        folder = tmp_path / f"{number}"
        command = work.start(folder)
        wait_for(lambda: list(folder.glob("cache/.*.partial/.tmp*")), pause=0)  # noqa: B023
        assert command.kill() and any(".partial/.tmp" in name for name in leftovers(folder))
        assert start_again(work, folder, expected) == 0


@pytest.mark.slow
def test_a_killed_worker_of_two_loses_nothing(undisturbed, log, tmp_path):
    """As when memory runs out; the run in the other process is cut too, and both are made again."""
    work, expected, _ = undisturbed("bench --jobs 2")
    command = work.start(tmp_path, env={"PRADOT_TEST_SLOW": "0.2"})
    worker = wait_for(lambda: len(log()) >= 5 and next((pid for pid in reversed(log()) if pid != command.pid), None))
    os.kill(worker, signal.SIGKILL)
    assert command.wait().status == 0 and "a process was ended from outside" in command.said
    assert assert_as_undisturbed(work, tmp_path, expected) == 0


# ------------------------------------------------------------------------------------------------------------------ two at once


def two_at_once(work, expected, folder, extras=((), ())):
    commands = [work.start(folder, extra=extra) for extra in extras]
    for command in commands:
        assert command.wait().status == 0, command.said
    if expected is not None:
        assert_as_undisturbed(work, folder, expected)
    assert leftovers(folder) == []
    return commands


def test_two_runs_at_once_share_the_work(undisturbed, tmp_path):
    work, expected, _ = undisturbed("run")
    first, second = two_at_once(work, expected, tmp_path)
    said = first.said + second.said
    assert said.count("finished before") == len(NAMES)  # each record was made by one of them


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bench", "bench --jobs 2", "tables", "notebooks", "features"])
def test_two_at_once(kind, undisturbed, tmp_path):
    work, expected, _ = undisturbed(kind)
    for number in range(3):
        two_at_once(work, expected, tmp_path / f"{number}")


@pytest.mark.slow
def test_two_runs_of_other_settings_and_one_folder_of_models(undisturbed, tmp_path):
    """The folder holds the model of one of them, whole, and the records say which."""
    work, *_ = undisturbed("run")
    for number in range(3):
        folder = tmp_path / f"{number}"
        two_at_once(work, None, folder, [("--seed", 1), ("--seed", 2)])
        records = [json.loads(path.read_text()) for path in sorted((folder / "runs").rglob("*.json"))]
        assert sorted((record["category"], record["seed"]) for record in records) == [(n, s) for n in NAMES for s in (1, 2)]
        for name in NAMES:
            model = folder / "models" / name
            of = {record["model_sha256"]: record["seed"] for record in records if record["category"] == name}
            assert len(of) == 2  # each knows its own
            seed = of[hashlib.sha256((model / "model.safetensors").read_bytes()).hexdigest()]
            assert json.loads((model / "config.json").read_text())["settings"]["random_state"] == seed


@pytest.mark.slow
def test_two_predictions_at_once_leave_those_of_one(starter, place, undisturbed, tmp_path):
    work, *_ = undisturbed("run")
    for seed in (1, 2):
        assert work.start(tmp_path / "made", extra=("--seed", seed, "--save-model", f"models{seed}")).wait().status == 0
    alone, both = {}, tmp_path / "both"
    both.mkdir()

    def predict(seed, folder):
        model = ["--model", tmp_path / "made" / f"models{seed}" / "own", "--encoder", work.encoder]
        return starter.start(folder, "predict", *model, "--images", place / "data" / "own" / "test" / "spot", "--out", "scores")

    for seed in (1, 2):
        folder = tmp_path / f"alone{seed}"
        folder.mkdir()
        assert predict(seed, folder).wait().status == 0
        alone[seed] = {path.relative_to(folder): found for path, found in contents(folder, ["scores"]).items()}
    assert alone[1] != alone[2]
    for command in [predict(seed, both) for seed in (1, 2)]:
        assert command.wait().status == 0, command.said
    found = {path.relative_to(both): found for path, found in contents(both, ["scores"]).items()}
    assert found in alone.values() and leftovers(both) == []


# ---------------------------------------------------------------------------------------------------------------------- stopped

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


@pytest.mark.parametrize(
    ("kind", "n_passes"),
    [
        ("run", 3),
        pytest.param("bench", 3, marks=pytest.mark.slow),
        pytest.param("bench --jobs 2", 5, marks=pytest.mark.slow),
        pytest.param("notebooks", 2, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(
    ("number", "status"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
    ids=["ctrl-c", "sigterm"],
)
def test_stopped_in_the_middle_and_started_again(kind, n_passes, number, status, undisturbed, log, tmp_path):
    """The encoder's first pass is a probe's; then come the features of a category's training and test images."""
    work, expected, _ = undisturbed(kind)
    command = work.start(tmp_path, env={"PRADOT_TEST_SLOW": "0.3"})
    wait_for(lambda: len(log()) >= n_passes)
    command.stop(number)
    assert_stopped(command, status)
    # Workers are killed by their parent: what they leave, the next start removes.
    assert "jobs" in kind or not any(".partial" in name for name in leftovers(tmp_path))
    finished = {path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/**/*.json")}
    start_again(work, tmp_path, expected)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["run", "bench --jobs 2", "notebooks"])
@pytest.mark.parametrize("pause", [0, 0.05, 0.3])
def test_stopped_twice(kind, pause, undisturbed, log, tmp_path):
    """The second Ctrl-C does not wait for what the first one has begun."""
    work, expected, _ = undisturbed(kind)
    command = work.start(tmp_path, env={"PRADOT_TEST_SLOW": "0.3"})
    wait_for(lambda: len(log()) >= 3)
    command.stop()
    time.sleep(pause)
    if command.starter.living():
        command.stop()
    assert command.wait(60).status in (130, -signal.SIGINT), command.said
    assert "Traceback" not in command.said and command.said.count("pradot: stopped") <= 1, command.said
    wait_for(lambda: not command.starter.living(), 10)
    start_again(work, tmp_path, expected)


@pytest.mark.slow
def test_stopped_while_it_begins(starter, tmp_path):
    """From the first instant on, in the imports too, as `python -m pradot`."""
    for pause in (0.3, 1, 2, 4):
        command = starter.start(
            tmp_path,
            code="import os, sys; os.execv(sys.executable, [sys.executable, '-m', 'pradot', 'doctor', '--root', '.'])",
            env={"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(Path(__file__).parent.parent)},
        )
        time.sleep(pause)
        command.stop()
        assert command.wait(60).status in (130, -signal.SIGINT, 0), command.said
        assert "Traceback" not in command.said


@pytest.mark.slow
def test_a_prediction_is_stopped_and_leaves_nothing_half(starter, place, undisturbed, log, tmp_path):
    work, *_ = undisturbed("run")
    assert work.start(tmp_path).wait().status == 0
    model = ["--model", "models/own", "--encoder", work.encoder]
    arguments = ["predict", *model, "--images", place / "data" / "own" / "test" / "spot", "--out", "scores"]
    command = starter.start(tmp_path, *arguments, env={"PRADOT_TEST_SLOW": "0.5"})
    wait_for(lambda: len(log()) >= 2)
    command.stop()
    assert_stopped(command)
    assert not (tmp_path / "scores").exists()
    assert starter.run(tmp_path, *arguments).status == 0 and (tmp_path / "scores" / "scores.csv").exists()


SOURCE = """
from pradot.paper import download, sources
sources.SOURCES["mvtec_loco"] = sources.Source("page", "licence", "page", {address!r}, {sha256!r}, {size})
download.BLOCK, download.WAIT = 500, {wait}
"""


@pytest.fixture
def download(tmp_path):
    """A server of a small data set that cuts each answer, and the code that makes a command take it for the official one."""
    write_loco_category(tmp_path / "made")
    server = Server()
    server.content = pack(tmp_path / "made", tmp_path / "loco.tar").read_bytes()
    server.at_once = len(server.content) // 40
    about = {"address": server.address("loco.tar"), "sha256": digest(server.content), "size": len(server.content)}
    yield server, lambda wait: SOURCE.format(**about, wait=wait)
    server.http.shutdown()
    server.http.server_close()


GET = ["data", "get", "mvtec_loco", "--root", "data", "--accept-licence"]


@pytest.mark.slow
@pytest.mark.parametrize("how", ["ctrl-c", "sigkill"])
def test_a_download_is_stopped_and_goes_on(how, starter, download, tmp_path):
    server, first = download
    command = starter.start(tmp_path, *GET, first=first(0.1), env={"NO_PROXY": "127.0.0.1"})
    wait_for(lambda: len(server.requests) >= 5)
    if how == "ctrl-c":
        command.stop()
        assert_stopped(command)
    else:
        assert command.kill()
    kept = (tmp_path / "data" / "loco.tar.partial").stat().st_size
    n_before = len(server.requests)
    server.at_once = None
    assert starter.run(tmp_path, *GET, first=first(0), env={"NO_PROXY": "127.0.0.1"}).status == 0
    assert server.requests[n_before:] == [f"bytes={kept}-"] and kept > 0
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mvtec_loco"]


@pytest.mark.slow
def test_two_downloads_at_once_are_one(starter, download, tmp_path):
    server, first = download
    commands = [starter.start(tmp_path, *GET, first=first(0.01), env={"NO_PROXY": "127.0.0.1"}) for _ in range(2)]
    for command in commands:
        assert command.wait().status == 0, command.said
    assert len(server.requests) == len(set(server.requests))  # no byte twice
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mvtec_loco"]


@pytest.mark.slow
def test_what_a_killed_unpacking_left_is_removed(starter, download, tmp_path):
    server, first = download
    server.at_once = None
    die = "import os, tarfile; tarfile.TarFile.extract = lambda *_, **__: os.kill(os.getpid(), 9)"
    env = {"NO_PROXY": "127.0.0.1"}
    assert starter.run(tmp_path, *GET, first=first(0) + die, env=env).status == -signal.SIGKILL
    assert any("unpacking" in name for name in leftovers(tmp_path))
    assert starter.run(tmp_path, *GET, first=first(0), env=env).status == 0
    assert server.requests == [None]  # what was downloaded and checked is not downloaded again
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mvtec_loco"] and leftovers(tmp_path) == []


# ------------------------------------------------------------------------------------------------------------------------ stuck


def test_a_run_that_is_late_is_named_once_and_again_when_it_is_twice_as_late():
    with progress_bar(4, "bench", "run", show=False) as bar, Watch(bar) as watch:
        watch.begin("a")
        start = watch.begun["a"]
        assert list(watch.late(start + LATE_FIRST - 1)) == []  # none has ended: who knows how long one takes
        (line,) = watch.late(start + LATE_FIRST + 1)
        assert line.startswith(f"note: a: not ended after {LATE_FIRST + 1} s, none has ended so far.")
        assert "\n" not in line and "Ctrl-C" in line
        watch.begin("b")
        watch.end("b")
        assert watch.longest < 1 and list(watch.late(start + LATE_FIRST + 2)) == []  # said before
        (line,) = watch.late(start + 2 * LATE_FIRST + 3)
        assert "the longest so far took 0 s" in line
        watch.begin("c")
        now = watch.begun["c"]
        assert list(watch.late(now + LATE_AFTER - 1)) == []
        watch.longest = LATE_AFTER
        assert list(watch.late(now + LATE_TIMES * LATE_AFTER - 1)) == []
        assert len(list(watch.late(now + LATE_TIMES * LATE_AFTER + 1))) == 1
        for job in ("a", "c"):
            watch.end(job)
        assert list(watch.late(now + 1e9)) == []


@pytest.mark.slow
@pytest.mark.parametrize("then", ["goes on", "ctrl-c"])
def test_a_stuck_worker_is_noticed(then, undisturbed, log, tmp_path):
    """The others go on; it may go on too, and Ctrl-C ends it."""
    work, expected, _ = undisturbed("bench --jobs 2")
    soon = "import pradot.paper.watch as w; w.LATE_AFTER = 3; w.LATE_TIMES = 0; w.LATE_FIRST = 60"
    command = work.start(tmp_path, first=soon, env={"PRADOT_TEST_SLOW": "0.2"})
    worker = wait_for(lambda: len(log()) >= 5 and next((pid for pid in reversed(log()) if pid != command.pid), None))
    os.kill(worker, signal.SIGSTOP)
    wait_for(lambda: "not ended after" in command.said)
    if then == "ctrl-c":
        command.stop()
        assert_stopped(command)
        start_again(work, tmp_path, expected)
    else:
        os.kill(worker, signal.SIGCONT)
        assert command.wait().status == 0, command.said
        assert_as_undisturbed(work, tmp_path, expected)
