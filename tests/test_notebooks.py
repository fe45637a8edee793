"""The notebooks as they are committed. That they run is what `make tables` shows."""

import ast
import json
import re
from fnmatch import fnmatch
from pathlib import Path

import nbformat
import pytest
from notebook_rules import MAX_BYTES, main, problems

from pradot.paper.figures import MAX_BYTES as MAX_FIGURE_BYTES
from pradot.paper.notebooks import describe_setting

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NAMES = [
    "00_quickstart",
    "01_features",
    "02_cost",
    "03_transport",
    "04_prototypes",
    "05_alpha",
    "06_benchmark",
    "07_tables",
    "08_speed",
    "09_ablations",
    "10_your_images",
]


def test_every_notebook_of_the_list_is_there():
    assert [path.stem for path in NOTEBOOKS] == NAMES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_follows_the_rules(path):
    assert problems(path) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_code_of_notebook_compiles(path):
    for number, cell in enumerate(nbformat.read(path, as_version=4).cells):
        if cell.cell_type == "code" and not cell.source.startswith(("%", "!")):
            compile(cell.source, f"{path.stem}, cell {number}", "exec")


def test_the_conditions_of_a_notebook_name_the_grids(tiny_encoder, capsys):
    describe_setting(tiny_encoder)
    assert "image size 64 px, feature maps scale 2: 8 x 8, scale 3: 4 x 4, device cpu" in capsys.readouterr().out


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_takes_long_shows_its_progress(path):
    """Fits, runs and features ask for a bar, which shows itself after 2 seconds."""
    source = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    for call in calls:
        name = getattr(call.func, "attr", getattr(call.func, "id", ""))
        if name in ("features", "run", "bench", "Pradot", "PrototypeLearner"):
            keywords = {keyword.arg for keyword in call.keywords}  # None: settings by **
            assert keywords & {"progress", None}, f"{path.stem}: no progress=True in {ast.unparse(call)}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_step_has_a_plot_and_every_plot_a_reading(path):
    steps = {}
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.source.startswith("## "):
            step = steps.setdefault(cell.source.splitlines()[0], [])
        elif steps:
            step.append("plot" if "save_figure(" in cell.source else cell.source.split(" ")[0])
    for title, cells in steps.items():
        if re.match(r"## \d", title):
            assert "plot" in cells, title
            assert all(cells[i + 1 : i + 2] == ["*Reading:*"] for i, cell in enumerate(cells) if cell == "plot"), title


def test_every_committed_figure_is_made_by_a_notebook():
    sources = "\n".join(cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells)
    made = set(re.findall(r'save_figure\(fig, "([^"]+)"', sources))
    assert sources.count("save_figure(") == len(made)  # each under a name of its own
    assert "stripplot" not in sources  # its jitter is drawn from a global generator: other bytes each time
    assert {path.stem for path in (FOLDER.parent / "figures").glob("*.png")} <= made


def test_committed_figures_are_small_and_listed():
    folder = FOLDER.parent / "figures"
    patterns = re.findall(r"`(\d\d_[\w*]+)`", (folder / "README.md").read_text())
    for path in folder.glob("*.png"):
        assert any(fnmatch(path.stem, pattern) for pattern in patterns), f"{path.stem} is not in figures/README.md"
        if path.stem[:2] in ("00", "01", "02", "03", "04", "05", "10"):
            assert path.stat().st_size <= MAX_FIGURE_BYTES, path.stem


@pytest.fixture
def notebook():
    """One that follows the rules."""
    cells = [
        nbformat.v4.new_markdown_cell(
            "See https://arxiv.org/abs/2508.12927, `../data/drawn` and `python -m pradot tables --runs DIR`."
        ),
        nbformat.v4.new_code_cell("root = None", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("1 / 2 / 3"),
    ]
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})


def test_a_good_notebook_has_no_problems(notebook, tmp_path):
    nbformat.write(notebook, tmp_path / "a.ipynb")
    assert problems(tmp_path / "a.ipynb") == []


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda n: n.metadata.kernelspec.update(name="pradot"), "kernel 'pradot'"),
        (lambda n: n.metadata.pop("kernelspec"), "kernel None"),
        (lambda n: n.cells[1].metadata.clear(), "0 cells tagged"),
        (lambda n: n.cells[2].metadata.update(tags=["parameters"]), "2 cells tagged"),
        (lambda n: n.metadata.update(widgets={}), "metadata of widgets"),
        (lambda n: n.metadata.update(papermill={}), "metadata of papermill"),
        (lambda n: n.cells[0].metadata.update(papermill={}), "cell 0: metadata of papermill"),
        (lambda n: n.cells[2].update(execution_count=1), "cell 2: an execution count"),
        (lambda n: n.cells[2].outputs.append(nbformat.v4.new_output("stream", text="x")), "cell 2: outputs"),
        (lambda n: n.cells[2].outputs.append(nbformat.v4.new_output("error", ename="OSError")), "error OSError"),
        (lambda n: n.cells[1].update(source='root = "/home/someone/data"'), "absolute path /home/someone/data"),
        (lambda n: n.cells[1].update(source=r'root = "C:\\data"'), "absolute path C:"),
        (lambda n: n.cells[0].update(source="x" * MAX_BYTES), "at most"),
        (lambda n: n.cells[0].update(id=n.cells[1].id), "two with the same"),
        (lambda n: n.cells[0].pop("id"), "without an id"),
        (lambda n: n.cells[0].pop("source"), "no valid notebook"),
        (lambda n: n.update(nbformat_minor=4), "no cell ids"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_breaks_a_rule_is_named(notebook, tmp_path, spoil, said):
    spoil(notebook)
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps(notebook))  # nbformat would mend what is spoilt
    found = problems(path)
    assert len(found) == 1
    assert said in found[0]


def test_a_text_that_is_no_notebook_is_named(tmp_path, capsys):
    (tmp_path / "a.ipynb").write_text("{")
    assert main([tmp_path / "a.ipynb"]) == 1
    assert "a.ipynb: no valid notebook" in capsys.readouterr().out
