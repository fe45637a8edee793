"""A run record is enough to repeat its run, and a repeat tells what is not the same."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from PIL import Image
from small_data import write_category
from small_runs import EXPERIMENTS, FAST, change, contents, numbers, write_record

from pradot import Encoder, PradotError
from pradot.cli import main
from pradot.paper import catalogue
from pradot.paper.identity import recorded_settings
from pradot.paper.presets import PRESETS
from pradot.paper.provenance import versions
from pradot.paper.recorded import find_data, preset_of
from pradot.paper.records import read_record
from pradot.paper.repeat import repeat
from pradot.paper.runs import run

YOUNG = ("code_sha256", "machine", "root", "files")  # what records did not have at first


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of it that a test may change, with its patch scores."""
    shutil.copytree(finished.parent, tmp_path / "copied")
    return tmp_path / "copied" / finished.name


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


def test_recorded_settings_are_taken_over_whatever_the_defaults_are(copied):
    record = read_record(copied)
    assert recorded_settings(preset_of(record, copied)) == record["settings"]
