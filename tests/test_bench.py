"""The benchmark: many runs, stopped at any moment and started again, on one machine and on a cluster of this one."""

from dataclasses import replace

import pytest
from small_data import write_category, write_encoder

from pradot import PradotError
from pradot.cli import main
from pradot.paper import bench as bench_module
from pradot.paper.bench import bench, list_jobs
from pradot.paper.presets import PRESETS
from pradot.paper.runs import read_record, read_records

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
    lost.with_name(f".{lost.stem}-xyz.partial.safetensors").write_text("half")
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

COUNTED = """
import pathlib
import torch

class TwoScales(torch.nn.Module):
    '''Writes a line for each pass of more than the probe.'''

    def __init__(self):
        super().__init__()
        torch.manual_seed(6)
        self.fine = torch.nn.Conv2d(3, 6, 8, stride=8)
        self.coarse = torch.nn.Conv2d(6, 10, 2, stride=2)

    def forward(self, x):
        if len(x) > 1:
            with open(pathlib.Path(__file__).with_suffix(".log"), "a") as log:
                log.write("pass\\n")
        fine = self.fine(x).relu()
        return [fine, self.coarse(fine).relu()]

def build():
    return TwoScales()
"""


def count(folder):
    return len((folder / "counted.log").read_text().splitlines())


@pytest.fixture
def counted(tmp_path):
    """An encoder that counts its passes over all processes."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    (folder / "counted.py").write_text(COUNTED)
    return f"{folder / 'counted.py'}:build"


def test_processes_share_features_and_find_the_same_numbers(data, encoder, expected, counted, tmp_path):
    jobs = make_jobs(data, encoder)
    outcomes = bench(jobs, tmp_path / "runs", n_jobs=2, cache=tmp_path / "cache")
    assert all(outcome.error is None for outcome in outcomes)
    assert numbers(tmp_path / "runs") == expected and everything(tmp_path / "runs") == files_of(expected)
    # Both processes come to the same category at the same time.
    jobs = make_jobs(data, counted, categories=["own"], n_seeds=4)
    outcomes = bench(jobs, tmp_path / "more", n_jobs=2, cache=tmp_path / "cache")
    assert all(outcome.is_new for outcome in outcomes)
    assert count(tmp_path / "encoder") == 2  # the training images, the test images
