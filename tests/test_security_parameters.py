"""Notebook parameters and what `make` is given: data, never code."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from hostile import said_in_one_line
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator

from pradot.cli import main
from pradot.paper import notebooks
from pradot.paper.parameters import parameter_value

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("no_switch")


NASTY = [
    "__import__('os').system('touch owned')",
    'x"); __import__("os").system("touch owned"); ("',
    "a\nimport os; os.system('touch owned')\n",
    '\\"; import os #',
    "x'''\"\"\"{}{root}%s\\",
    "folder 'with' \"quotes\"",
]
PLAIN = st.recursive(
    st.text() | st.integers() | st.booleans() | st.none(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
)


@settings(max_examples=25, deadline=None)
@given(PLAIN)
def test_a_parameter_becomes_a_literal_of_its_value(value):
    body = ast.parse(PythonTranslator.codify({"name": value})).body
    assert len(body) == 1 and ast.literal_eval(body[0].value) == value


def test_parameters_are_data_in_a_notebook_that_runs(here, monkeypatch, capsys):
    (here / "notebooks").mkdir()
    names = ["root", *(f"p{i}" for i in range(len(NASTY)))]
    cells = [nbformat.v4.new_code_cell("\n".join(f"{name} = None" for name in names), metadata={"tags": ["parameters"]})]
    cells.append(nbformat.v4.new_code_cell(f"import json\nprint(json.dumps([{', '.join(names)}]))"))
    kernel = {"kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), here / "notebooks" / "00_a.ipynb")
    monkeypatch.setattr(notebooks, "project_root", lambda: here)
    given = [word for name, text in zip(names[1:], NASTY, strict=True) for word in ("-p", name, text)]
    assert main(["notebooks", *given, "-p", "root", NASTY[-1], "--out", "out"]) == 0
    ran = nbformat.read(here / "out" / "00_a.ipynb", as_version=4)
    assert json.loads(ran.cells[-1].outputs[0].text) == [str(here / NASTY[-1]), *map(parameter_value, NASTY)]
    assert not list(here.rglob("owned"))
    for name in ("a; import os", "root\nimport os", "__import__('os').system('touch owned')", "", "0"):
        assert main(["notebooks", "-p", name, "1"]) == 1
        assert "unknown notebook parameter" in said_in_one_line(capsys)


@pytest.mark.parametrize("text", ["1e3", "01", "{a: b}", "'quoted'", "true", "=1"])
def test_a_path_is_taken_as_it_stands(here, monkeypatch, text):
    given = {}
    monkeypatch.setattr(notebooks, "run_notebooks", lambda names, parameters, *rest: given.update(parameters))
    assert main(["notebooks", "-p", "root", text, "-p", "weights", "none"]) == 0
    assert given == {"root": text, "weights": None}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("text", [BOMB, "a: &a [*a]", "a: " + "[" * 600, "a: !!python/object/apply:os.system ['touch owned']"])
def test_yaml_that_grows_or_runs_is_refused(here, capsys, text):
    (here / "p.yaml").write_text(text)
    assert main(["notebooks", "-f", "p.yaml"]) == 1
    assert "p.yaml is no readable YAML file" in said_in_one_line(capsys)
    if text != BOMB:
        assert main(["notebooks", "-p", "alphas", text[3:] if text[3] == "[" else "[*a]"]) == 1
        assert "cannot read the parameter value" in said_in_one_line(capsys)
    assert not (here / "owned").exists()


FAKE_PYTHON = """#!{python}
import json, os, sys
if "-c" in sys.argv:
    print("%d.%d" % sys.version_info[:2])
elif "--names" in sys.argv:
    print("mvtec_ad")
else:
    with open("calls", "a") as file:
        file.write(json.dumps([sys.argv[1:], os.environ.get("PYTEST_ADDOPTS"), os.environ.get("PIP_NO_INDEX")]) + chr(10))
"""

WORDS = "$(shell touch o1) `touch o2` $(touch o3); touch o4 && touch o5 '\" | touch o6 ${HOME} $$x #"


@pytest.fixture
def make(here, monkeypatch):
    """Call make in a project whose Python only writes down what it is asked."""
    if shutil.which("make") is None:
        pytest.skip("no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, here)
    python = here / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PYTHON.format(python=sys.executable))
    python.chmod(0o755)
    (here / ".venv" / "complete").touch()
    # `make test` hands its own on.
    settings = re.search(r"^SETTINGS := (.*)", (ROOT / "Makefile").read_text(), re.M)[1].split()
    for name in (*settings, "MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "PYTEST_ADDOPTS", "PIP_NO_INDEX"):
        monkeypatch.delenv(name, raising=False)
    (here / WORDS).mkdir()

    def call(*words, **environment):
        (here / "calls").unlink(missing_ok=True)
        done = subprocess.run(["make", *words], env=os.environ | environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert not list(here.glob("o[0-9]"))
        return [json.loads(line) for line in (here / "calls").read_text().splitlines()]

    return call


@pytest.mark.parametrize("by", ["words", "environment"])
def test_make_takes_its_settings_as_words(make, by):
    settings = {"DATA": WORDS, "PRESET": WORDS, "CATEGORY": WORDS, "ENCODER": WORDS, "MAX_STEPS": WORDS, "BATCH_SIZE": WORDS}
    named = [f"{name}={value}" for name, value in settings.items()] if by == "words" else []
    calls = make("tables", *named, **(settings if by == "environment" else {}))
    assert [words for words, *_ in calls] == [
        ["-m", "pradot", "data", "--quick", "--root", WORDS],
        ["-m", "pradot", "notebooks", "-p", "root", WORDS]
        + [w for name in ("encoder", "preset", "category", "max_steps", "batch_size") for w in ("-p", name, WORDS)]
        + ["-p", "dataset", "mvtec_ad", "--out", "build/notebooks/mvtec_ad"],
    ]


def test_make_takes_the_folder_of_the_environment_and_more_words_as_words(make):
    assert make("tables", PRADOT_DATA=WORDS)[0][0] == ["-m", "pradot", "data", "--quick", "--root", WORDS]
    assert make("test", f"ARGS=-k 'a or b' {WORDS}") == [[["-m", "pytest"], f" -k 'a or b' {WORDS}", None]]
    assert make("test", TORCH=WORDS, NAMES=WORDS) == [[["-m", "pytest"], " ", None]]
    assert make("test", PRADOT_OFFLINE="1")[0][2] == "1"  # for pip
    assert make("test", PRADOT_OFFLINE="0")[0][2] is None
