"""The benchmark: many runs, stopped at any moment and started again, on one machine and on a cluster of this one."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from distributed import Client, LocalCluster
from small_data import ENCODER, write_category, write_encoder

from pradot import PradotError
from pradot.cli import main
from pradot.paper import bench as bench_module
from pradot.paper.ablations import get_ablation
from pradot.paper.bench import bench, list_ablation_jobs, list_jobs
from pradot.paper.presets import PRESETS
from pradot.paper.records import read_record, read_records

NAMES = ["bottle", "cable", "own"]
# The whole way through the program in a fraction of a second.
PRESET = replace(PRESETS["fast"], image_size=64, n_prototypes=1, max_steps=2, batch_size=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(NAMES):
        write_category(root, name, seed=seed)
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


def make_jobs(data, encoder, **changes):
    return list_jobs("mvtec_ad", data, **{"presets": [PRESET], "encoder": encoder, "device": "cpu", "n_seeds": 2} | changes)


def numbers(folder):
    """What a run found, by its file: nothing of when and how fast."""
    return {
        path.relative_to(folder): (record["metrics"], record["images"], path.with_suffix(".safetensors").read_bytes())
        for path, record in read_records(folder).items()
    }


@pytest.fixture(scope="module")
def expected(data, encoder, tmp_path_factory):
    """The numbers of an undisturbed run of all jobs."""
    out = tmp_path_factory.mktemp("expected")
    bench(make_jobs(data, encoder), out)
    return numbers(out)


def by_job(found):
    """`numbers` by category and seed: the name of a run's file has the encoder's in it."""
    return {(path.parent.name, path.name.split("-seed")[1][0]): value for path, value in found.items()}


def everything(folder):
    """All files of a folder, hidden ones too."""
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def files_of(expected):
    return sorted([*expected, *(path.with_suffix(".safetensors") for path in expected)])


def test_jobs_are_every_preset_seed_and_category_once(data, encoder):
    jobs = make_jobs(data, encoder, presets=[PRESET, replace(PRESET, max_steps=1)])
    assert len(set(jobs)) == len(jobs) == 2 * 2 * len(NAMES)
    assert [job.category for job in jobs[:4]] == [*NAMES, NAMES[0]]  # neighbours need other features
    assert str(jobs[0]) == "mvtec_ad bottle, fast, shortened, tiny.py:build, seed 0"
    with pytest.raises(PradotError, match=r"no category bottel of mvtec_ad in .*; found there: bottle, cable, own"):
        make_jobs(data, encoder, categories=["own", "bottel"])
    assert {job.category for job in make_jobs(data, encoder, categories=["own"])} == {"own"}


def test_one_record_a_job_and_nothing_twice(data, encoder, tmp_path, monkeypatch):
    jobs = make_jobs(data, encoder)
    outcomes = bench(jobs, tmp_path)
    assert [outcome.job for outcome in outcomes] == jobs
    assert all(outcome.is_new and outcome.error is None for outcome in outcomes)
    assert sorted(outcome.path for outcome in outcomes) == sorted(read_records(tmp_path))
    for outcome in outcomes:
        record = read_record(outcome.path)
        assert (record["category"], record["seed"]) == (outcome.job.category, outcome.job.seed)
    monkeypatch.setattr(bench_module, "_do", None)  # any further run would fail
    again = bench([*jobs, jobs[0]], tmp_path)
    assert [(o.job, o.path, o.is_new, o.error) for o in again] == [(o.job, o.path, False, None) for o in outcomes]


def test_what_is_half_written_is_done_again(data, encoder, expected, tmp_path):
    jobs = make_jobs(data, encoder)
    outcomes = bench(jobs, tmp_path)
    cut, lost, kept = (outcome.path for outcome in outcomes[:3])
    cut.write_text(cut.read_text()[:200])
    lost.unlink()
    half = lost.with_name(f".{lost.stem}-xyz12345.partial") / f".{lost.name}"
    half.parent.mkdir()
    half.write_text("half")
    lost.with_name(f".{lost.stem}.lock").touch()
    before = kept.stat().st_mtime_ns
    assert [outcome.is_new for outcome in bench(jobs, tmp_path)] == [True, True, *([False] * (len(jobs) - 2))]
    assert kept.stat().st_mtime_ns == before
    assert numbers(tmp_path) == expected and everything(tmp_path) == files_of(expected)


def test_a_failing_job_is_told_in_a_line_and_the_rest_goes_on(encoder, tmp_path):
    for seed, name in enumerate(NAMES):
        write_category(tmp_path / "data", name, seed=seed)
    broken = tmp_path / "data" / "cable" / "train" / "good" / "001.png"
    image = broken.read_bytes()
    broken.write_bytes(image[:100])
    jobs = make_jobs(tmp_path / "data", encoder, n_seeds=1)
    outcomes = bench(jobs, tmp_path / "runs")
    assert [outcome.error is None for outcome in outcomes] == [True, False, True]
    assert str(broken) in outcomes[1].error and "\n" not in outcomes[1].error
    assert {record["category"] for record in read_records(tmp_path / "runs").values()} == {"bottle", "own"}
    broken.write_bytes(image)
    assert [outcome.is_new for outcome in bench(jobs, tmp_path / "runs")] == [False, True, False]


def test_an_error_of_the_programs_own_names_its_place(data, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(bench_module, "run", lambda *_, **__: {}["key"])
    (outcome,) = bench(make_jobs(data, encoder, n_seeds=1, categories=["own"]), tmp_path)
    assert outcome.error.startswith("KeyError: 'key' (test_bench.py, line ")


def test_an_encoder_that_cannot_be_had_fails_its_own_jobs_alone(data, encoder, tmp_path):
    jobs = make_jobs(data, encoder, n_seeds=1, categories=["own"]) + make_jobs(
        data, "resnet5000", n_seeds=1, categories=["own"]
    )
    outcomes = bench(jobs, tmp_path)
    assert outcomes[0].error is None and "resnet5000" in outcomes[1].error


def test_rows_of_an_ablation_are_jobs_with_an_encoder_of_their_own_or_the_shared_one(data, encoder):
    settings = {"categories": ["own", "cable"], "n_seeds": 2}
    jobs = list_ablation_jobs(get_ablation("alpha", PRESET), "mvtec_ad", data, encoder=encoder, **settings)
    assert all(len(row_jobs) == 4 for row_jobs in jobs.values())
    assert {row.label: row_jobs[0].preset for row, row_jobs in jobs.items()}["0.5"].branches == ((2, 0.5), (3, 0.5))
    assert {job.encoder for row_jobs in jobs.values() for job in row_jobs} == {encoder}
    jobs = list_ablation_jobs(get_ablation("encoder", PRESET), "mvtec_ad", data, encoder=encoder, weights="of.pth", **settings)
    named = {(row.encoder, job.encoder, job.weights) for row, row_jobs in jobs.items() for job in row_jobs}
    assert all(asked == taken and weights is None for asked, taken, weights in named) and len(named) == len(jobs) > 3


def test_command_line(data, encoder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "fast", replace(PRESET, max_steps=6, batch_size=24))
    for seed, name in enumerate(NAMES):
        write_category(tmp_path / "data", name, seed=seed)
    short = ["--seeds", "2", "--max-steps", "1", "--batch-size", "2", "--device", "cpu"]
    command = [
        "bench",
        "--dataset",
        "mvtec_ad",
        "--root",
        "data",
        "--preset",
        "fast",
        "--seeds",
        "2",
        "--encoder",
        encoder,
        *short,
    ]
    (tmp_path / "data" / "own" / "test" / "spot" / "000.png").write_bytes(b"")
    assert main(command) == 1
    out, err = capsys.readouterr()
    assert "6 runs: 0 finished before, 4 done, 2 failed; records in runs" in out
    assert "failed: mvtec_ad own, fast, shortened, tiny.py:build, seed 1: " in err and "000.png" in err
    assert main([*command, "--category", "bottle", "cable"]) == 0
    assert "4 runs: 4 finished before, 0 done, 0 failed" in capsys.readouterr().out
    assert main([*command, "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ several processes

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


@pytest.fixture
def logged(tmp_path):
    """An encoder that tells who used it."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "logged.py").write_text(LOGGED)
    return f"{folder / 'logged.py'}:build"


def passes(logged):
    """The process of each pass so far."""
    log = Path(logged.replace(".py:build", ".log"))
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def wait_for(what, seconds=120):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)


def test_processes_share_features_and_find_the_same_numbers(data, logged, expected, tmp_path):
    jobs = make_jobs(data, logged)  # the weights of the other encoder, so the same numbers
    outcomes = bench(jobs, tmp_path / "runs", n_jobs=2, cache=tmp_path / "cache")
    assert all(outcome.error is None for outcome in outcomes)
    assert by_job(numbers(tmp_path / "runs")) == by_job(expected)
    assert len(passes(logged)) == PASSES * len(NAMES)  # each category's once, for both seeds


def test_the_workers_of_a_scheduler_find_the_same_numbers(data, encoder, expected, tmp_path):
    threads = {"processes": False, "n_workers": 1, "threads_per_worker": 2, "dashboard_address": None}
    with LocalCluster(**threads) as cluster:
        outcomes = bench(make_jobs(data, encoder), tmp_path, scheduler=cluster.scheduler_address)
    assert all(outcome.is_new for outcome in outcomes)
    assert numbers(tmp_path) == expected and everything(tmp_path) == files_of(expected)


# Workers and killed runs: the processes are started by hand, as a user would.

BENCH = """
import sys
sys.path.insert(0, {tests!r})
from test_bench import bench, make_jobs
if __name__ == "__main__":
    bench(make_jobs({data!r}, {encoder!r}, n_seeds={seeds}), {out!r}, progress=True, **{workers!r})
"""


def start_bench(tmp_path, data, encoder, seeds, workers):
    """Start a run in a process group of its own."""
    settings = {"tests": str(Path(__file__).parent), "data": str(data), "encoder": encoder, "seeds": seeds}
    script = tmp_path / "run.py"
    script.write_text(BENCH.format(**settings, out=str(tmp_path / "runs"), workers=workers))
    return subprocess.Popen([sys.executable, str(script)], start_new_session=True, stderr=subprocess.DEVNULL)


@pytest.fixture
def cluster(tmp_path):
    """Address of a scheduler and its two workers, processes of their own on this machine."""
    file, log = tmp_path / "scheduler.json", open(tmp_path / "cluster.log", "w")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    options = {"env": environment, "stdout": log, "stderr": log}
    dask = [sys.executable, "-m", "dask"]
    place = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    processes = [subprocess.Popen([*dask, "scheduler", *place], **options)]
    worker = ["worker", "--host", "127.0.0.1", "--no-nanny", "--nthreads", "1", "--no-dashboard"]
    worker += ["--local-directory", str(tmp_path)]
    processes += [subprocess.Popen([*dask, *worker, "--scheduler-file", str(file)], **options) for _ in range(2)]
    try:
        wait_for(file.exists)
        address = json.loads(file.read_text())["address"]
        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield address
    finally:
        for process in processes:
            process.kill()
            process.wait()
        log.close()


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(data, logged, expected, cluster, tmp_path):
    jobs = make_jobs(data, logged)
    with ThreadPoolExecutor() as pool:
        running = pool.submit(bench, jobs, tmp_path / "runs", scheduler=cluster)
        wait_for(lambda: len(set(passes(logged))) == 2 and len(list((tmp_path / "runs").rglob("*.json"))) >= 1)
        victim = passes(logged)[-1]  # it is in the middle of a run
        done = len(read_records(tmp_path / "runs"))
        os.kill(victim, signal.SIGKILL)
        outcomes = running.result(timeout=300)
    assert all(outcome.error is None for outcome in outcomes)
    assert by_job(numbers(tmp_path / "runs")) == by_job(expected)
    assert len(everything(tmp_path / "runs")) == 2 * len(jobs)
    again = len(passes(logged)) - PASSES * len(jobs)
    assert 1 <= again <= PASSES  # of the one run that was cut
    print(
        f"\n2 workers, {len(jobs)} runs; worker {victim} killed (SIGKILL) with {done} finished: all {len(outcomes)} finished, "
        f"{again} of {len(passes(logged))} passes of the encoder were done again, numbers and patch scores as undisturbed"
    )


@pytest.mark.slow
def test_a_run_that_ends_its_process_is_told_and_the_rest_goes_on(data, encoder, expected, logged, tmp_path, capsys):
    """As when memory runs out."""
    deadly = Path(logged.replace(".py:build", ".py"))
    deadly.write_text(deadly.read_text().replace("time.sleep(0.3)", "os.kill(os.getpid(), 9)"))
    jobs = [*make_jobs(data, logged, categories=["own"], n_seeds=1), *make_jobs(data, encoder)]
    outcomes = bench(jobs, tmp_path / "runs", n_jobs=2)
    assert outcomes[0].error.startswith("its process was ended from outside")
    assert all(outcome.error is None for outcome in outcomes[1:])
    assert numbers(tmp_path / "runs") == expected
    assert "a process was ended from outside" in capsys.readouterr().out
    print(f"\none of {len(jobs)} runs kills its process (2 at once): it is told, the other {len(jobs) - 1} are finished")


@pytest.mark.slow
@pytest.mark.parametrize("where", ["one process", "two processes", "two processes, their parent alone", "cluster"])
def test_a_killed_run_goes_on_where_it_was(where, data, logged, expected, tmp_path, request):
    workers = {"scheduler": request.getfixturevalue("cluster")} if where == "cluster" else {"n_jobs": 1 + ("two" in where)}
    jobs, runs = make_jobs(data, logged), tmp_path / "runs"
    random = np.random.default_rng(0)
    kills = []
    for n_finished in (1, 3):  # killed twice
        process = start_bench(tmp_path, data, logged, 2, workers)
        wait_for(lambda: len(list(runs.rglob("*.json"))) >= n_finished)  # noqa: B023
        time.sleep(random.uniform(0, 0.5))
        if "alone" in where or where == "cluster":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        finished = {path: path.stat().st_mtime_ns for path in runs.rglob("*.json") if not path.name.startswith(".")}
        kills.append(len(finished))
        for path in finished:
            read_record(path)  # whole
    outcomes = bench(jobs, runs, **workers)
    assert all(outcome.error is None for outcome in outcomes)
    assert {path: path.stat().st_mtime_ns for path in finished} == finished  # none was touched
    assert by_job(numbers(runs)) == by_job(expected)
    assert len(everything(runs)) == 2 * len(jobs)
    again = len(passes(logged)) - PASSES * len(jobs)
    at_once = 1 if where == "one process" else 2
    assert again <= PASSES * at_once * len(kills)  # of what was in the middle when it was killed
    if where == "cluster":
        assert again == 0  # the workers end their runs, and the next call waits for them
    print(
        f"\n{where}: {len(jobs)} runs, killed (SIGKILL) with {' and '.join(map(str, kills))} finished, started again: "
        f"{sum(not outcome.is_new for outcome in outcomes)} found finished, {sum(o.is_new for o in outcomes)} done, "
        f"{again} of {len(passes(logged))} passes of the encoder were done again, numbers and patch scores as undisturbed"
    )
