"""Two at once on one folder: no record lost or doubled, every file whole, the same numbers."""

import hashlib
import json

import pytest
from work import NAMES, assert_as_undisturbed, contents, leftovers


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
