"""The companion as it is used, on a drawn set of a few images: command line and notebooks, with the real offline encoder."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from pradot.paper.drawn import draw
from pradot.paper.records import read_records

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """A copy of the project, whose figures and records are then not touched, with a small drawn set in ``tray``."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("pradot", "notebooks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    draw(folder, n_train=6, n_good=4, n_per_defect=2, size=96)
    return folder


def pradot(project, *arguments):
    """Run a command in the project's folder; return what it printed."""
    environment = {**os.environ, "PYTHONPATH": str(project), "PRADOT_CACHE": str(project / "cache")}
    environment.pop("PYTEST_CURRENT_TEST")  # kernels treat the terminal's output in another way under pytest
    command = [sys.executable, "-m", "pradot", *map(str, arguments)]
    done = subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_one_seed_gives_one_result(project):
    common = ["run", "--dataset", "drawn", "--root", "tray", "--preset", "fast", "--encoder", "tf_efficientnet_lite0"]
    common += ["--max-steps", 4, "--batch-size", 2, "--device", "cpu"]
    for out, seed in (("first", 0), ("second", 0), ("third", 1)):
        pradot(project, *common, "--seed", seed, "--out", out, "--save-model", f"model_{out}")
    first, second, third = (next(iter(read_records(project / out).values())) for out in ("first", "second", "third"))
    assert first["images"] == second["images"] and first["metrics"] == second["metrics"]
    assert first["model_sha256"] == second["model_sha256"]
    assert first["images"] != third["images"]
    pradot(project, "predict", "--model", "model_first/tray", "--images", "tray/test/missing", "--out", "scores")
    scores = {image["file"]: image["score"] for image in first["images"]}
    for line in (project / "scores" / "scores.csv").read_text().splitlines()[1:]:
        file, score = line.split(",")
        assert float(score) == pytest.approx(scores[f"test/missing/{file}"], abs=1e-5)


def test_notebooks_make_their_figures_and_tables(project):
    names = ["03_transport", "06_benchmark", "07_tables"]
    parameters = ["-p", "root", project / "tray", "-p", "max_steps", 4]
    printed = pradot(project, "notebooks", *names, *parameters)
    assert [line.split(" ... ")[0] for line in printed.splitlines()] == names
    expected = set()
    for name in names:
        notebook = nbformat.read(project / "build" / "notebooks" / f"{name}.ipynb", as_version=4)
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        assert {output.output_type for output in outputs} <= {"stream", "display_data", "execute_result"}
        assert not any("widget" in str(output.get("data")) for output in outputs)  # no progress bar is kept
        assert "stderr" not in {output.get("name") for output in outputs}
        expected |= set(re.findall(r'save_figure\(fig, "([^"]+)"', "\n".join(cell.source for cell in notebook.cells)))
    assert {path.stem for path in (project / "figures").glob("*.png")} == expected - {"07_difference"}  # of real data alone
    assert (project / "figures" / "tables" / "drawn-fast_shortened-tf_efficientnet_lite0.md").exists()
