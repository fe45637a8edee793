"""What counts as the code of a run, and runs of other code."""

import ast
import shutil
import subprocess
from pathlib import Path

import pytest
from small_runs import FAST, change

from pradot.cli import main
from pradot.paper import presets, provenance
from pradot.paper import runs as runs_module
from pradot.paper.bench import bench, list_jobs
from pradot.paper.provenance import code_sha256, outline, versions
from pradot.paper.records import read_record, read_records


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


def test_a_run_of_other_code_is_kept_until_it_is_asked_for(data, spec, tmp_path, capsys, monkeypatch):
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
