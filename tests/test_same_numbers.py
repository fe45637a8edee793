"""Same input, same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import EXPERIMENTS, FAST, contents, numbers

from pradot import Encoder
from pradot.paper.presets import RIVALS
from pradot.paper.repeat import TOLERANCE
from pradot.paper.runs import read_branch_maps, run


@pytest.mark.parametrize("name", ["paper", "fast", "best", "patchcore-10-position", "padim"])
def test_one_seed_gives_the_same_bytes(name, data, encoder, tmp_path):
    made = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        model = None if name in RIVALS else folder / "model"
        _, path, _ = run("mvtec_ad", data, "part", EXPERIMENTS[name], encoder, out=folder / "runs", model=model)
        made.append((numbers(path), contents(folder / "model")))
    assert made[0] == made[1] and len(made[0][1]) == (0 if name in RIVALS else 2)


@pytest.mark.parametrize("name", ["paper", "fast", "best", "patchcore-10", "padim"])
def test_threads_change_metrics_within_the_tolerance(name, data, spec, threads, tmp_path):
    records, maps = [], []
    for n in (1, 2):
        threads(n)
        record, path, _ = run("mvtec_ad", data, "part", EXPERIMENTS[name], Encoder(spec, image_size=64), out=tmp_path / str(n))
        assert record["machine"]["threads"] == n
        records.append(record)
        maps.append(read_branch_maps(path))
    for metric, value in records[0]["metrics"].items():
        assert records[1]["metrics"][metric] == pytest.approx(value, abs=TOLERANCE)
    for branch in maps[0]:
        torch.testing.assert_close(maps[1][branch], maps[0][branch], atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("name", ["paper", "fast", "best"])
def test_scores_do_not_depend_on_the_images_scored_beside(name, encoder, draw):
    detector = EXPERIMENTS[name].detector(encoder).fit(draw(8, 0))
    together = detector.branch_maps(draw(5, 1))
    by_one = [detector.branch_maps([image]) for image in draw(5, 1)]
    in_pairs = detector.branch_maps_of_features(encoder.features(draw(5, 1), batch_size=2))
    for branch, maps in together.items():
        torch.testing.assert_close(torch.cat([one[branch] for one in by_one]), maps, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(in_pairs[branch], maps, atol=1e-5, rtol=1e-5)


def test_the_order_in_which_a_folder_lists_its_files_does_not_matter(data, encoder, finished, tmp_path, monkeypatch):
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(sorted(listed(self))))
    _, path, _ = run("mvtec_ad", data, "part", FAST, encoder, out=tmp_path / "runs", model=tmp_path / "model")
    assert numbers(path) == numbers(finished)


def test_cached_features_and_prototypes_are_those_that_are_computed(data, encoder, finished, tmp_path):
    for out in ("computed", "cached"):
        _, path, _ = run("mvtec_ad", data, "part", FAST, encoder, out=tmp_path / out, cache=tmp_path / "cache")
        (record, maps), (expected, expected_maps) = numbers(path), numbers(finished)
        assert maps == expected_maps
        for name in ("metrics", "by_defect", "images", "branches"):
            assert record[name] == expected[name]
    assert "learned before" in record["notes"][-1]


IN_ANOTHER_PROCESS = """
import sys
sys.path.insert(0, {tests!r})
import torch
from pradot import Encoder
from pradot.paper.runs import run
from small_runs import FAST
torch.set_num_threads(1)
run("mvtec_ad", {data!r}, "part", FAST, Encoder({spec!r}, image_size=64), out={out!r})
"""


@pytest.mark.slow
def test_a_process_with_another_seed_of_hashes_finds_the_same_numbers(data, spec, finished, tmp_path):
    """Sets are in another order there. That several jobs at once find the same numbers is in test_bench.py."""
    settings = {"tests": str(Path(__file__).parent), "data": str(data), "spec": spec, "out": str(tmp_path / "runs")}
    (tmp_path / "run.py").write_text(IN_ANOTHER_PROCESS.format(**settings))
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    subprocess.run([sys.executable, tmp_path / "run.py"], check=True, env=os.environ | {"PYTHONHASHSEED": seed})
    record, maps = numbers(tmp_path / "runs" / finished.relative_to(finished.parents[2]))
    expected, expected_maps = numbers(finished)
    assert maps == expected_maps
    assert {**record, "model_sha256": None} == {**expected, "model_sha256": None}
