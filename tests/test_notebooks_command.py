"""The command `notebooks`, and its parameters."""

import os
import re

import nbformat
import pytest
from jupyter_client.kernelspec import NoSuchKernel

from pradot.cli import main
from pradot.encoder import default_encoder
from pradot.paper import notebooks
from pradot.paper.committed import tidy
from pradot.paper.parameters import parameter_value
from pradot.weights import OFFLINE_ENCODER


@pytest.fixture
def project(here, monkeypatch):
    """A project folder with three notebooks; the second fails when told to, the third prints its parameters."""
    (here / "notebooks").mkdir()
    cells = {
        "00_first": ["a = 1  # a number", "print(a)"],
        "01_second": [
            "a = 1\nfail = False  # raise an error\ndie = False  # end the kernel",
            "import os\nassert os.environ['PRADOT_HEADLESS']",
            "if fail:\n    1 / 0",
            "if die:\n    os.kill(os.getpid(), 9)",
        ],
        "02_third": [
            "root = None\nweights = None\nruns = None\ntables = None\nencoder = None",
            "import os",
            "print(root, weights, runs, tables, encoder, os.environ.get('PRADOT_AUTO_NOTE'), sep='\\n')",
        ],
    }
    for name, sources in cells.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(notebook, here / "notebooks" / f"{name}.ipynb")
        tidy(here / "notebooks" / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "project_root", lambda: here)
    monkeypatch.delenv("PRADOT_HEADLESS", raising=False)
    return here


def test_notebooks_run_in_order_with_their_parameters(project, capsys):
    (project / "more.yaml").write_text("fail: false\n")
    assert main(["notebooks", "-p", "a", "1e-3", "-f", "more.yaml", "--out", "done"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ...")[0] for line in lines] == ["00_first", "01_second", "02_third"]
    assert all(line.endswith(" s") for line in lines)
    executed = nbformat.read(project / "done" / "00_first.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "0.001\n"


def test_outputs_are_kept_where_the_notebooks_run_as_they_are(project, capsys):
    path = project / "notebooks" / "00_first.ipynb"
    assert main(["notebooks", "00", "--keep-outputs"]) == 0
    kept = nbformat.read(path, as_version=4)
    assert kept.cells[-1].outputs[0].text == "1\n" and set(kept.metadata) == {"kernelspec", "language_info", "pradot"}
    before = path.read_bytes()
    assert main(["notebooks", "00", "--keep-outputs", "-p", "a", "2"]) == 1
    assert "run without parameters, not with a" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_one_line_per_notebook_and_no_bar_in_it(project, capfd, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it, a kernel leaves the terminal's stderr alone anyway
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    path = project / "notebooks" / "00_first.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint('the bar', file=sys.__stderr__, flush=True)"))
    nbformat.write(notebook, path)
    assert main(["notebooks", "00", "--out", "done"]) == 0
    printed = capfd.readouterr()
    assert "the bar" in printed.err
    assert re.fullmatch(r"00_first \.\.\. \r00_first \.\.\. \d+ s\n", printed.out)  # written anew where a bar was
    executed = nbformat.read(project / "done" / "00_first.ipynb", as_version=4)
    assert not any(cell.outputs for cell in executed.cells if "the bar" in cell.source)


def test_notebooks_stop_at_the_first_failure_naming_notebook_and_cell(project, capsys):
    assert main(["notebooks", "01", "02", "-p", "fail", "true"]) == 1
    printed = capsys.readouterr()
    assert "01_second ... failed" in printed.out and "02_third" not in printed.out
    assert "01_second failed in cell" in printed.err and "ZeroDivisionError" in printed.err and "if fail:" in printed.err
    assert main(["notebooks", "01", "-p", "fail", "false"]) == 0


def test_a_kernel_that_dies_is_named_with_notebook_and_cell(project, capsys):
    assert main(["notebooks", "01", "02", "-p", "die", "true"]) == 1
    printed = capsys.readouterr()
    assert "01_second ... failed" in printed.out and "02_third" not in printed.out
    assert "01_second failed in cell 4 (if die:): Kernel died" in printed.err and "memory" in printed.err


def test_a_missing_kernel_is_named(project, capsys, monkeypatch):
    def missing(*args, **kwargs):
        raise NoSuchKernel("python3")

    monkeypatch.setattr(notebooks.papermill, "execute_notebook", missing)
    assert main(["notebooks", "00"]) == 1
    assert "kernel python3, which is missing: pip install ipykernel" in capsys.readouterr().err


def printed_by_third(project):
    executed = nbformat.read(project / "build" / "notebooks" / "02_third.ipynb", as_version=4)
    return executed.cells[-1].outputs[0].text.splitlines()


def test_paths_are_relative_to_where_the_user_stands(project, monkeypatch):
    stand = project / "elsewhere"
    stand.mkdir()
    monkeypatch.chdir(stand)
    monkeypatch.setenv("PRADOT_CACHE", "kept")
    (stand / "more.yaml").write_text("tables: my tables\nencoder: ../net.py:build\n")
    paths = ["-p", "root", "2024", "-p", "weights", "a.pth", "-p", "runs", str(project / "runs")]
    assert main(["notebooks", "02", *paths, "-f", "more.yaml"]) == 0
    expected = [stand / "2024", stand / "a.pth", project / "runs", stand / "my tables", f"{stand / '../net.py'}:build", None]
    assert printed_by_third(project) == [str(value) for value in expected]
    assert os.environ["PRADOT_CACHE"] == str(stand / "kept")
    assert main(["notebooks", "02", "-p", "root", "null", "-p", "encoder", "resnet18"]) == 0
    assert printed_by_third(project) == ["None", "None", "None", "None", "resnet18", "None"]


def test_auto_is_settled_once_for_all_notebooks(project, capsys, monkeypatch):
    monkeypatch.setenv("PRADOT_AUTO_NOTE", "of an earlier call")
    monkeypatch.setattr(notebooks, "default_encoder", lambda: ("the_papers", None))
    assert main(["notebooks", "02", "-p", "encoder", "auto"]) == 0
    assert printed_by_third(project)[-2:] == ["the_papers", "None"]
    assert "note" not in capsys.readouterr().out

    monkeypatch.setattr(notebooks, "default_encoder", lambda: ("the_default", "it stands in"))
    assert main(["notebooks", "02", "-p", "encoder", "auto"]) == 0
    assert printed_by_third(project)[-2:] == ["auto", "it stands in"]
    assert capsys.readouterr().out.startswith("note: it stands in\n02_third ...")
    assert default_encoder() == (OFFLINE_ENCODER, "it stands in")  # what the kernels make of it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1", -1),
        ("0.3", 0.3),
        ("1e-3", 1e-3),
        ("true", True),
        ("None", None),
        ("[0, 0.3]", [0, 0.3]),
        ("'3'", "3"),
        ("01", "01"),
        ("nan", "nan"),
        ("/data: mine", "/data: mine"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
    ],
)
def test_parameter_values(text, value):
    found = parameter_value(text)
    assert found == value and type(found) is type(value)
