"""The benchmark: many runs, each once, in one process, in several, and by the workers of a scheduler."""

from dataclasses import replace

import pytest
from distributed import LocalCluster
from small_bench import NAMES, PASSES, PRESET, by_job, everything, files_of, make_jobs, numbers, passes, write_logged
from small_data import write_category, write_encoder

from pradot import PradotError
from pradot.cli import main
from pradot.paper import bench as bench_module
from pradot.paper.ablations import get_ablation
from pradot.paper.bench import bench, list_ablation_jobs
from pradot.paper.presets import PRESETS
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
    monkeypatch.setattr(bench_module, "TIMEOUT", 0.5)
    assert main([*command, "--scheduler", "tcp://127.0.0.1:9"]) == 1
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err


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
