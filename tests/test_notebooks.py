"""The notebooks as they are committed. That they run is what `make tables` shows."""

import ast
import base64
import inspect
import io
import json
import re
from fnmatch import fnmatch
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from notebook_rules import MAX_BYTES, main, problems
from PIL import Image

from pradot.errors import PradotError
from pradot.paper import committed
from pradot.paper.committed import keep_outputs, stamp, tidy
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
    "11_beyond",
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_takes_from_the_package_is_there_and_called_as_it_can_be(path):
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    nodes = list(ast.walk(ast.parse("\n".join(cells))))
    taken = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module.partition(".")[0] == "pradot":
            exec(ast.unparse(node), taken)
    assert taken
    of_modules = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)]
    taken |= {
        ast.unparse(node): getattr(taken[node.value.id], node.attr)
        for node in of_modules
        if inspect.ismodule(taken.get(node.value.id))
    }
    for call in nodes:
        if isinstance(call, ast.Call) and callable(function := taken.get(ast.unparse(call.func))):
            if function is not PradotError and not any(isinstance(argument, ast.Starred) for argument in call.args):
                inspect.signature(function).bind_partial(*call.args, **{key.arg: key for key in call.keywords if key.arg})


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
    for number, cell in enumerate(cells[1:], 1):
        cell.execution_count = number
    cells[2].outputs = [nbformat.v4.new_output("stream", name="stdout", text="0.1666 in ../runs\n")]
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}})
    notebook.metadata.pradot = stamp(notebook)
    return notebook


def output(**data):
    """A displayed output of the given kinds."""
    return nbformat.v4.new_output("display_data", {kind.replace("_", "/"): content for kind, content in data.items()})


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
        (lambda n: n.cells[2].update(execution_count=None), "cell 2: was not run"),
        (lambda n: n.cells[2].update(source="2 / 2 / 3"), "stale outputs"),
        (lambda n: n.metadata.pop("pradot"), "stale outputs"),
        (lambda n: n.metadata.pradot.update(version="0.0.1"), "stale outputs"),
        (lambda n: n.cells[2].outputs[0].update(name="stderr"), "cell 2: output of stderr"),
        (lambda n: n.cells[2].outputs[0].update(text="in /home/me/runs"), "absolute path /home/me/runs in the output"),
        (lambda n: n.cells[2].outputs.append(output(text_html="<td>/tmp/x</td>")), "absolute path /tmp/x"),
        (lambda n: n.cells[2].outputs.append(output(application_json="{}")), "output of kind application/json"),
        (lambda n: n.cells[2].outputs.append(nbformat.v4.new_output("error", ename="OSError")), "error OSError"),
        (lambda n: n.cells[0].update(source='root = "/home/someone/data"'), "absolute path /home/someone/data"),
        (lambda n: n.cells[0].update(source=r'root = "C:\\data"'), "absolute path C:"),
        (lambda n: n.cells[0].update(source="C:/Users/me"), "absolute path C:/Users/me"),
        (lambda n: n.cells[0].update(source="see file:///home/me/x"), "absolute path file:///home/me/x"),
        (lambda n: n.cells[2].outputs[0].update(text="dir:/data/me"), "absolute path /data/me"),
        (lambda n: n.cells[2].outputs[0].update(text="\x1b[34m/home/me\x1b[0m"), "/home/me"),
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


def picture(width=1600, height=400):
    """A picture as matplotlib's inline backend gives it, base64."""
    written = io.BytesIO()
    Image.effect_noise((width, height), 80).convert("RGBA").save(written, "PNG")
    return base64.b64encode(written.getvalue()).decode()


@pytest.fixture
def project(notebook, tmp_path):
    """A folder with a committed notebook and an executed copy, as papermill leaves it."""
    path, executed = tmp_path / "notebooks" / "a.ipynb", tmp_path / "build" / "a.ipynb"
    for file in (path, executed):
        file.parent.mkdir()
    nbformat.write(notebook, path)
    notebook.metadata.update(papermill={"duration": 1.0}, widgets={"state": {}})
    notebook.cells[2].metadata.papermill = {"duration": 1.0}
    notebook.cells[2].outputs = [
        nbformat.v4.new_output("stream", name="stdout", text=f"wrote {tmp_path}/runs\n"),
        nbformat.v4.new_output("stream", name="stderr", text="50%|####"),
        nbformat.v4.new_output("stream", name="stdout", text=f"and {tmp_path}s {tmp_path}-old /mnt{tmp_path} in {tmp_path}.\n"),
        output(**{"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "HBox()"}),
        output(image_png=picture(), text_plain="<Figure>"),
    ]
    nbformat.write(notebook, executed)
    return tmp_path


def test_kept_outputs_are_what_a_reader_sees_and_follow_the_rules(project):
    path, executed = project / "notebooks" / "a.ipynb", project / "build" / "a.ipynb"
    keep_outputs(executed, path, project)
    before, kept = nbformat.read(executed, as_version=4), nbformat.read(path, as_version=4)
    assert [cell.source for cell in kept.cells] == [cell.source for cell in before.cells]
    text, figure = kept.cells[2].outputs
    # Other folders have names that begin or end alike.
    assert text.text == f"wrote ../runs\nand {project}s {project}-old /mnt{project} in ...\n"
    image = Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"])))
    assert image.size == (1000, 250) and image.mode == "P"
    assert [cell.execution_count for cell in kept.cells if cell.cell_type == "code"] == [1, 2]
    assert kept.cells[1].metadata == {"tags": ["parameters"]}
    others = (f"{project}s", f"{project}-old", f"/mnt{project}")
    assert problems(path) == [f"cell 2: absolute path {other} in the output" for other in others]
    again = path.read_bytes()
    keep_outputs(executed, path, project)
    tidy(path)
    assert path.read_bytes() == again


def test_outputs_of_other_cells_are_not_kept(project):
    path, executed = project / "notebooks" / "a.ipynb", project / "build" / "a.ipynb"
    before = path.read_bytes()
    executed.write_text(executed.read_text().replace("1 / 2 / 3", "1 / 2 / 4"))
    with pytest.raises(ValueError, match="not of the cells"):
        keep_outputs(executed, path, project)
    assert path.read_bytes() == before


@pytest.mark.parametrize("spoil", [{"execution_count": None}, {"outputs": [nbformat.v4.new_output("error", ename="OSError")]}])
def test_outputs_of_a_run_that_stopped_are_not_kept(project, spoil):
    path, executed = project / "notebooks" / "a.ipynb", project / "build" / "a.ipynb"
    before, ran = path.read_bytes(), nbformat.read(executed, as_version=4)
    ran.cells[2].update(spoil)
    nbformat.write(ran, executed)
    with pytest.raises(ValueError, match="not run to its end"):
        keep_outputs(executed, path, project)
    assert path.read_bytes() == before


def test_a_styled_table_is_kept_alike_each_time(project):
    path, executed = project / "notebooks" / "a.ipynb", project / "build" / "a.ipynb"
    kept = []
    for _ in range(2):
        table = pd.DataFrame({"a": [1.0]}).style.format("{:.1f}")
        ran = nbformat.read(executed, as_version=4)
        ran.cells[2].outputs = [output(text_html=table._repr_html_(), text_plain=repr(table))]
        nbformat.write(ran, executed)
        keep_outputs(executed, path, project)
        kept.append(path.read_bytes())
    assert kept[0] == kept[1] and b"T_00000" in kept[0] and b" at 0x" not in kept[0]


def test_prose_may_change_without_a_new_run_and_code_may_not(notebook):
    before = stamp(notebook)
    notebook.cells[0].source = "Another sentence."
    assert stamp(notebook) == before
    notebook.cells[2].source = "1 / 2"
    assert stamp(notebook) != before


def test_pictures_are_made_smaller_until_the_notebook_is_small_enough(project, monkeypatch):
    path, executed = project / "notebooks" / "a.ipynb", project / "build" / "a.ipynb"
    widths = []
    for most in (500_000, 200_000, 0):
        monkeypatch.setattr(committed, "MAX_BYTES", most)
        keep_outputs(executed, path, project)
        (figure,) = [out for out in nbformat.read(path, as_version=4).cells[2].outputs if out.output_type == "display_data"]
        widths.append(Image.open(io.BytesIO(base64.b64decode(figure.data["image/png"]))).width)
        assert most == 0 or path.stat().st_size <= most
    assert widths[0] == 1000 > widths[1] > widths[2] == 500  # the last where none is small enough
