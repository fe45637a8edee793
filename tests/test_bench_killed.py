"""The benchmark, killed at any moment and started again, on one machine and on a cluster of this one."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from commands import wait_for
from distributed import Client
from small_bench import NAMES, PASSES, by_job, everything, make_jobs, numbers, passes, write_logged
from small_data import write_category, write_encoder

from pradot.paper.bench import bench
from pradot.paper.records import read_record, read_records


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for seed, name in enumerate(NAMES):
        write_category(root, name, seed=seed)
    return root


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def expected(data, encoder, tmp_path_factory):
    """The numbers of an undisturbed run of all jobs."""
    out = tmp_path_factory.mktemp("expected")
    bench(make_jobs(data, encoder), out)
    return numbers(out)


@pytest.fixture
def logged(tmp_path):
    """An encoder that tells who used it."""
    return write_logged(tmp_path / "encoder")


# Workers and killed runs: the processes are started by hand, as a user would.

BENCH = """
import sys
sys.path.insert(0, {tests!r})
from pradot.paper.bench import bench
from small_bench import make_jobs
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
