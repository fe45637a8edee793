"""Same input, same numbers; a run record is enough to repeat its run, and a repeat tells what is not the same."""

import ast
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from small_data import write_category, write_encoder

from pradot import Encoder, PradotError
from pradot.cli import main
from pradot.paper import catalogue, presets, provenance
from pradot.paper import runs as runs_module
from pradot.paper.bench import bench, list_jobs
from pradot.paper.identity import recorded_settings
from pradot.paper.presets import PRESETS, RIVALS
from pradot.paper.provenance import code_sha256, outline, versions
from pradot.paper.recorded import find_data, preset_of
from pradot.paper.records import hash_record, read_record, read_records
from pradot.paper.repeat import TOLERANCE, repeat
from pradot.paper.runs import read_branch_maps, run

# The whole way through the program in a fraction of a second.
SMALL = {"image_size": 64, "n_prototypes": 1, "n_iter": 5, "max_steps": 2, "batch_size": 2}
EXPERIMENTS = {name: replace(preset, **SMALL) for name, preset in PRESETS.items()}
EXPERIMENTS |= {name: replace(rival, image_size=64) for name, rival in RIVALS.items()}
FAST = EXPERIMENTS["fast"]
OF_TIME = ("seconds", "created", "peak_memory_gb", "sha256")  # the last is over all others
YOUNG = ("code_sha256", "machine", "root", "files")  # what records did not have at first


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_category(root, n_train=8, n_good=8, n_bad=8)
    return root


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(spec):
    return Encoder(spec, image_size=64)


@pytest.fixture(scope="module")
def finished(data, encoder, tmp_path_factory):
    """The record of a run."""
    folder = tmp_path_factory.mktemp("finished")
    return run("mvtec_ad", data, "part", FAST, encoder, out=folder / "runs", model=folder / "model")[1]


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may change, with its patch scores."""
    shutil.copytree(finished.parent, tmp_path / "copied")
    return tmp_path / "copied" / finished.name


def change(path, **changes):
    record = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            del record[name]
        else:
            record[name] = record[name] | value if isinstance(value, dict) else value
    write_record(path, record)
    return record


def write_record(path, record):
    """As a run writes it, with its checksum."""
    path.write_text(json.dumps(record | {"sha256": hash_record(record)}))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def numbers(path):
    """All that a run leaves, but for times."""
    record = {name: value for name, value in read_record(path).items() if name not in OF_TIME}
    return record, path.with_suffix(".safetensors").read_bytes()


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------ same input, same numbers


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
from test_repeat import FAST, Encoder, run, torch
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


# ------------------------------------------------------------------------------------------------ repeat


def test_a_fresh_record_is_repeated_and_equal(finished, spec, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PRESETS, "fast", replace(FAST, reg=0.5, n_prototypes=3))  # the preset has changed since
    before = contents(finished.parents[3])
    assert main(["repeat", str(finished), "--encoder", spec]) == 0
    printed = capsys.readouterr().out
    assert "code, versions, processor and threads are those of then" in printed
    assert printed.count("the same bytes") == 2 and printed.endswith("equal: the same numbers to the last bit\n")
    assert printed.count("| +0.0000      | equal") == 8 and "differs" not in printed
    assert contents(finished.parents[3]) == before and not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["paper", "best", "patchcore-10-position", "padim"])
def test_every_kind_of_experiment_is_repeated(name, data, encoder, tmp_path):
    experiment = replace(EXPERIMENTS[name], variant="of mine")
    record, path, _ = run("mvtec_ad", data, "part", experiment, encoder, seed=3, out=tmp_path)
    rebuilt = preset_of(record, path)
    assert recorded_settings(rebuilt) == recorded_settings(experiment) and rebuilt.label == experiment.label
    assert repeat(path, encoder=encoder).verdict == "equal"


def test_the_repeats_own_record_is_kept_where_asked(copied, encoder, tmp_path):
    found = repeat(copied, encoder=encoder, out=tmp_path / "kept")
    assert found.path.is_relative_to(tmp_path / "kept") and numbers(found.path) == numbers(copied)
    with pytest.raises(PradotError, match=r"kept \(--out\) is not an empty folder"):
        repeat(copied, encoder=encoder, out=tmp_path / "kept")  # it would find itself


@pytest.mark.parametrize(("by", "verdict", "status"), [(0.002, "differs", 1), (-0.002, "differs", 1), (0.0005, "within", 0)])
@pytest.mark.parametrize("where", ["metrics", "by_defect"])
def test_a_metric_that_differs_is_told(where, by, verdict, status, copied, spec, capsys):
    record = read_record(copied)
    values = record["metrics"] if where == "metrics" else record["by_defect"]["spot"]
    doctored = values | {"pixel_ap": values["pixel_ap"] + by}
    change(copied, **{where: doctored if where == "metrics" else {"spot": doctored}})
    assert main(["repeat", str(copied), "--encoder", spec]) == status
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1].startswith(f"{verdict}")
    assert "the same bytes were expected: these numbers depend on something that is not recorded" in printed
    named = [line for line in printed if "pixel_ap" in line and f"| {verdict}" in line]
    assert len(named) == (0 if (where, verdict) == ("by_defect", "within") else 1)


def test_scores_that_differ_where_metrics_do_not_are_not_equal(copied, encoder):
    images = read_record(copied)["images"]
    images[0]["score"] *= 1 + 1e-6
    change(copied, images=images)
    found = repeat(copied, encoder=encoder)
    assert found.verdict == "within tolerance" and (found.table["verdict"] == "equal").all()


def test_a_metric_that_is_gone_or_was_not_there_is_told(copied, encoder):
    metrics = read_record(copied)["metrics"]
    change(copied, metrics={"of_then": 0.5, "image_ap": None})
    found = repeat(copied, encoder=encoder)
    assert found.verdict == "differs" and found.table.loc["image_ap", "verdict"] == "differs"  # None is no number
    change(copied, metrics={"image_ap": metrics["image_ap"]})
    found = repeat(copied, encoder=encoder)
    assert found.verdict == "equal" and "not compared, only then: of_then" in found.lines


def test_an_older_record_is_repeated_and_what_it_cannot_tell_is_said(copied, data, encoder, spec, capsys):
    change(copied, **dict.fromkeys(YOUNG), device="cpu (x86_64, 1 threads)")
    assert main(["repeat", str(copied), "--encoder", spec, "--root", str(data)]) == 0
    printed = capsys.readouterr().out
    untold = [line.split(": ")[1] for line in printed.splitlines() if line.startswith("not told by the record: ")]
    assert untold == ["processor", "deterministic", "cudnn benchmark", "pradot's code"]
    assert printed.endswith("equal: the same numbers to the last bit\n")
    assert run("mvtec_ad", data, "part", FAST, encoder, out=copied.parents[1])[2]  # it lies elsewhere
    place = run("mvtec_ad", data, "part", FAST, encoder, out=copied.parents[1])[1]
    shutil.copy(copied, place)
    assert not run("mvtec_ad", data, "part", FAST, encoder, out=copied.parents[1])[2]  # found by its settings as ever


def test_the_threads_are_those_of_then(data, spec, threads, tmp_path):
    threads(2)
    _, path, _ = run("mvtec_ad", data, "part", FAST, Encoder(spec, image_size=64), out=tmp_path)
    threads(1)
    said = []
    assert repeat(path, encoder=spec, say=said.append).verdict == "equal" and torch.get_num_threads() == 1
    assert not any("differs" in line for line in said)
    said.clear()
    assert repeat(path, encoder=spec, threads=1, say=said.append).verdict in ("equal", "within tolerance")
    assert "differs: threads: 2 then, 1 now" in said


def test_what_differs_is_told_before_the_long_work(copied, encoder, monkeypatch):
    change(
        copied,
        versions={"torch": "1.0", "commit": "abc1234"},
        code_sha256="ab",
        device="NVIDIA H100",
        machine={"processor": "PDP-11"},
    )
    said = []
    monkeypatch.setattr("pradot.paper.repeat.run", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        repeat(copied, encoder=encoder, say=said.append)
    said = "\n".join(said)
    assert f"differs: torch: 1.0 then, {versions()['torch']} now" in said
    assert "differs: device: NVIDIA H100 then, cpu" in said and "differs: processor: PDP-11 then" in said
    assert "differs: pradot's code: pradot 0.1.0, commit abc1234 then, pradot " in said


def refused(arguments, capsys):
    """The one line of an error of `repeat`."""
    assert main(["repeat", *map(str, arguments)]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "Traceback" not in printed
    return printed


def test_other_data_are_refused_by_name(copied, spec, tmp_path, capsys):
    part = write_category(tmp_path / "data", n_train=8, n_good=8, n_bad=8)
    good = part / "train" / "good"
    Image.new("RGB", (48, 48)).save(good / "000.png")
    (good / "001.png").rename(good / "100.png")
    said = refused([copied, "--encoder", spec, "--root", tmp_path / "data"], capsys)
    assert "of 32 files 1 missing, 1 changed, 1 new: train/good/001.png, train/good/000.png, train/good/100.png)" in said
    change(copied, files=None)
    assert "too old to tell which files" in refused([copied, "--encoder", spec, "--root", tmp_path / "data"], capsys)


def test_data_that_are_gone_are_looked_for_and_asked_for(copied, spec, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    change(copied, root=str(tmp_path / "gone"))
    said = refused([copied, "--encoder", spec], capsys)
    assert f"looked in {tmp_path / 'gone'} (as recorded, but nothing is there) and {tmp_path / 'data'}: name" in said
    assert "--root" in said
    change(copied, root=None)
    assert f"looked in {tmp_path / 'data'}: name" in refused([copied, "--encoder", spec], capsys)
    assert f"looked in {tmp_path}: name" in refused([copied, "--encoder", spec, "--root", tmp_path], capsys)


def test_data_are_found_where_they_were_or_where_a_run_would_look(copied, data, encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = read_record(copied)
    assert find_data(record, None, copied) == (data, "part")
    shutil.copytree(data, tmp_path / "data" / "mvtec_ad")
    record["root"] = str(tmp_path)  # is there, but holds other things
    there = tmp_path / "data" / "mvtec_ad"
    assert find_data(record, None, copied) == (there, "part")
    _, path, _ = run("folder", there / "part", "part", FAST, encoder, out=tmp_path / "own")
    (there / "part").rename(tmp_path / "renamed")
    assert repeat(path, encoder=encoder, root=tmp_path / "renamed").verdict == "equal"


def test_a_record_does_not_say_where_to_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    drawn = []
    monkeypatch.setattr(catalogue, "draw", lambda root: drawn.append(root) or root)
    (tmp_path / "elsewhere").mkdir()
    record = {"dataset": "drawn", "category": "tray", "root": str(tmp_path / "elsewhere")}
    assert find_data(record, None, "record.json") == (tmp_path / "data" / "drawn", "tray")
    assert set(drawn) == {tmp_path / "data" / "drawn"}


def test_code_that_only_a_record_names_is_not_run(copied, spec, tmp_path, capsys):
    evil = tmp_path / "evil.py"
    evil.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    encoder = read_record(copied)["encoder"]
    for name in ("tiny.py:build", f"{evil}:build", "mine"):
        change(copied, encoder=encoder | {"name": name})
        assert "run only if you name it (--encoder FILE.py:FUNCTION)" in refused([copied], capsys)
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:.*on record")
def test_another_encoder_is_refused(copied, data, spec, two_scales, tmp_path, capsys):
    other = tmp_path / "other.py"
    text = Path(spec.rpartition(":")[0]).read_text()
    other.write_text(text.replace("manual_seed(5)", "manual_seed(6)"))
    assert "has other weights (sha256 " in refused([copied, "--encoder", f"{other}:build"], capsys)
    other.write_text(text.replace("fine = self.fine(x).relu()", "fine = self.fine(x)"))
    assert "the same weights, but other features at scale 2" in refused([copied, "--encoder", f"{other}:build"], capsys)
    other.write_text(text.replace("return TwoScales()", "module = TwoScales(); module.mean = (0, 0, 0); return module"))
    assert "the mean [0.0, 0.0, 0.0], then [0.485" in refused([copied, "--encoder", f"{other}:build"], capsys)

    for name in ("a", "b"):
        torch.manual_seed(ord(name))
        torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / f"{name}.pth")
    encoder = Encoder("test_resnet", weights=tmp_path / "a.pth", image_size=64)
    _, path, _ = run("mvtec_ad", data, "part", FAST, encoder, out=tmp_path / "runs")
    assert "give the file of weights too (--weights FILE)" in refused([path], capsys)
    assert "test_resnet+b (file b.pth, not on record" in refused([path, "--weights", tmp_path / "b.pth"], capsys)
    assert main(["repeat", str(path), "--weights", str(tmp_path / "a.pth")]) == 0


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"settings": {"colour": 3}}, "colour is unknown"),
        ({"settings": {"reg": "0.1; import os"}}, "reg is '0.1; import os'"),
        ({"settings": {"start": 3}}, "start is 3"),
        ({"settings": {"branches": [[2, 0.1, 4]]}}, "branches is [[2, 0.1, 4]]"),
        ({"settings": {"method": "os.system"}}, "do not fit this version"),
        ({"preset": "slow"}, "preset 'slow' is unknown"),
        ({"dataset": "../x"}, "this version knows mvtec_ad"),
        ({"category": "../part"}, "are not found"),
        ({"seed": "0"}, "seed is '0'"),
        ({"metrics": {"image_auroc": "high"}}, "image_auroc is 'high', no fraction"),
        ({"encoder": {"image_size": "64"}}, "missing or damaged in it: encoder: image_size"),
        ({"format": 99}, "format 99"),
        ({"label": None}, "it has no label"),
    ],
)  # fmt: skip
def test_a_record_that_does_not_fit_is_refused(changes, expected, copied, spec, capsys):
    change(copied, **changes)
    assert expected in refused([copied, "--encoder", spec], capsys)


def test_a_record_that_lacks_a_setting_is_refused(copied, spec, capsys):
    settings = read_record(copied)["settings"]
    del settings["reg"]
    change(copied, settings=None)
    write_record(copied, json.loads(copied.read_text()) | {"settings": settings})
    assert "reg is missing" in refused([copied, "--encoder", spec], capsys)
    copied.write_text(copied.read_text()[:300])
    assert "not a whole run record" in refused([copied, "--encoder", spec], capsys)
    assert "nowhere.json" in refused(["nowhere.json"], capsys)


# ------------------------------------------------------------------------------------------------ code


def test_comments_docstrings_and_layout_are_not_code():
    def said(text):
        return outline(ast.parse(text))

    plain = said("def f(x):\n    return [x + 1]\n")
    assert said('"""Of a file."""\n\ndef f(\n    x,\n):\n    """Of a function."""\n    return [x + 1,]  # why\n') == plain
    assert len({plain, said("def f(x):\n    return [x + 2]\n"), said("def f(x):\n    return [x - 1]\n")}) == 3
    assert said("x = 1") != said("x = '1'") and said("x = 1") != said("x = 1.0") and said("f(a=1)") != said("f(b=1)")


def test_the_code_of_a_run_is_all_that_it_imports():
    imported = {path.relative_to(provenance.PACKAGE).as_posix() for path in provenance._imported(Path(runs_module.__file__))}
    numbers = {
        "cost.py",
        "transport.py",
        "streaming.py",
        "prototypes.py",
        "detector.py",
        "metrics.py",
        "counts.py",
        "encoder.py",
        "weights.py",
    }
    assert numbers | {"paper/runs.py", "paper/baselines.py", "paper/masks.py", "paper/evaluation.py"} <= imported
    assert imported.isdisjoint({"cli.py", "paper/bench.py"})
    assert not [name for name in imported if name.startswith(("paper/tables", "paper/figures"))]
    assert set(provenance._NO_NUMBERS) <= imported


@pytest.mark.parametrize(("line", "changes"), [("SETTING = 1", True), ("# a comment", False)])
def test_a_changed_line_of_code_is_other_code(line, changes, monkeypatch, tmp_path):
    shutil.copytree(provenance.PACKAGE, tmp_path / "pradot", ignore=shutil.ignore_patterns("__pycache__"))
    with (tmp_path / "pradot" / "metrics.py").open("a") as file:
        file.write(f"\n{line}\n")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "pradot")
    assert (code_sha256.__wrapped__() != code_sha256()) == changes


def test_a_run_of_other_code_is_kept_until_it_is_asked_for(copied, data, spec, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(presets.PRESETS, "fast", FAST)
    command = ["run", "--dataset", "mvtec_ad", "--root", str(data), "--preset", "fast", "--encoder", spec, "--device", "cpu"]
    assert main(command) == 0
    assert "note: that run" not in capsys.readouterr().out
    (path,) = read_records("runs")
    for code, said in {"ab": "of other code (pradot 0.1.0", None: "of code that it does not tell (pradot 0.1.0"}.items():
        change(path, code_sha256=code, metrics={"image_auroc": 0.123})
        assert main(command) == 0
        assert f"note: that run was {said}" in capsys.readouterr().out
        assert read_record(path)["metrics"]["image_auroc"] == 0.123
        assert main([*command, "--again"]) == 0
        assert "finished before" not in capsys.readouterr().out
        assert read_record(path)["metrics"]["image_auroc"] != 0.123
        assert main([*command, "--again"]) == 0
        assert "finished before" in capsys.readouterr().out  # of today's code: a stopped --again goes on where it was


def test_a_bench_tells_of_other_code_once(data, spec, tmp_path, capsys):
    jobs = list_jobs("mvtec_ad", data, presets=[FAST], n_seeds=3, encoder=spec, device="cpu")
    paths = [outcome.path for outcome in bench(jobs, tmp_path)]
    for path in paths[:2]:
        change(path, code_sha256="ab")
    assert not any(outcome.is_new for outcome in bench(jobs, tmp_path, progress=True))
    assert "note: 2 of the 3 runs finished before are of other code (pradot 0.1.0" in capsys.readouterr().out
    assert [outcome.is_new for outcome in bench(jobs, tmp_path, again=True)] == [True, True, False]


def test_the_commit_is_that_of_a_clone_alone(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        subprocess.run(["git", *who, "-C", str(tmp_path), *arguments], check=True, capture_output=True)

    for place in ("pradot", "env/pradot"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "cost.py").write_text("a = 1\n")
    git("init")
    git("add", "pradot")
    git("commit", "-m", "first")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "pradot")
    commit = versions()["commit"]
    assert len(commit) >= 7 and not commit.endswith("-dirty")
    (tmp_path / "notes").write_text("of another folder")
    assert versions()["commit"] == commit
    (tmp_path / "pradot" / "cost.py").write_text("a = 2\n")
    assert versions()["commit"] == f"{commit}-dirty"
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path / "env" / "pradot")  # installed in somebody's project
    assert "commit" not in versions()


def test_recorded_settings_are_taken_over_whatever_the_defaults_are(copied):
    record = read_record(copied)
    assert recorded_settings(preset_of(record, copied)) == record["settings"]
