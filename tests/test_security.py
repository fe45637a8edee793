"""Attacks: files, names, records, models, parameters and addresses that somebody else has made to do harm.

Each test is an attack; what has to hold is that nothing is run, nothing is written or read elsewhere, nothing is connected to,
and that the user is told in one line.
"""

import ast
import csv
import functools
import io
import json
import os
import pickle
import re
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import nbformat
import numpy as np
import psutil
import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from papermill.translators import PythonTranslator
from PIL import Image
from small_data import write_category, write_encoder, write_visa

from pradot import Encoder, Pradot, PradotError
from pradot.cli import main
from pradot.encoder import default_encoder
from pradot.names import file_cell, inert, shown
from pradot.network import HUB_SWITCH, SWITCH, forbidden, is_this_machine, offline
from pradot.paper import archives, download, notebooks, unpacking
from pradot.paper.datasets import load_category
from pradot.paper.own import write_predictions
from pradot.paper.parameters import parameter_value
from pradot.paper.records import read_record
from pradot.paper.tables import as_rows, conditions, write_tables
from pradot.paper.unpacking import unpack
from pradot.sealed import load_sealed, save_sealed
from pradot.weights import weights_available

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.usefixtures("few_prototypes")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, the caches in it, and no switch set."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.delenv(HUB_SWITCH, raising=False)
    return tmp_path


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def said_in_one_line(capsys):
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]


# What code may not do -----------------------------------------------------------------------------------------------------

ALLOWED = {
    ("pradot/weights.py", "import pickle"): "the name of the error that torch's safe loader raises",
    (
        "pradot/weights.py",
        "exec_module",
    ): "--encoder FILE.py:FUNCTION runs the file that the user names, never one that a file names",
    ("pradot/paper/parameters.py", "yaml.load"): "with a loader that is a SafeLoader without aliases",
    ("pradot/paper/unpacking.py", "extract without filter"): "of a zip file, whose members were looked at; it makes no links",
    ("tests/test_book.py", "exec_module"): "the book's build script, of this tree",
    ("tests/commands.py", "exec"): "commands that the tests themselves write",
    ("tests/test_notebooks.py", "exec"): "imports of the committed notebooks, of this tree",
    ("tests/test_security.py", "import pickle"): "to make hostile files",
}


def dangers(source):
    """What a source does that could run what a file holds, or let the shell read it."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            for name in names:
                if name.split(".")[0] in ("pickle", "cPickle", "_pickle", "dill", "cloudpickle", "shelve", "marshal"):
                    yield f"import {name}"
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {word.arg: ast.unparse(word.value) for word in node.keywords}
        name = called.rpartition(".")[2]
        if called in ("eval", "exec", "__import__"):
            yield called
        if name in ("exec_module", "extractall", "unsafe_load", "full_load", "read_pickle", "to_pickle"):
            yield name
        if called in ("os.system", "os.popen", "joblib.load", "joblib.dump", "torch.hub.load", "yaml.load", "tempfile.mktemp"):
            yield called
        if called == "torch.load" and given.get("weights_only") != "True":
            yield "torch.load"
        if called in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
            yield "np.load"
        if given.get("shell", "False") != "False":
            yield "shell"
        if name == "extract" and "filter" not in given and "." in called:
            yield "extract without filter"
        if name == "query" and not (node.args and isinstance(node.args[0], ast.Constant)):
            yield "query"


@functools.cache
def sources():
    """Name and source of every module, script, test and code cell."""
    patterns = ("pradot/**/*.py", "tests/*.py", ".ci/*.py", "notebooks/*/*.py")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    found = [(path.relative_to(ROOT).as_posix(), path.read_text()) for path in sorted(paths)]
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        found += [(f"notebooks/{path.name}", "".join(cell["source"])) for cell in cells]
    return found


def test_no_code_runs_what_a_file_holds():
    found = {(name, danger) for name, source in sources() for danger in dangers(source)}
    assert found == set(ALLOWED)  # also: nothing stays on the list that is gone


@pytest.mark.parametrize(
    "source",
    [
        *("import pickle", "from pickle import loads", "import cloudpickle as c", "import shelve", "eval(text)", "exec(text)"),
        *("os.system(text)", "subprocess.run(text, shell=True)", "subprocess.run(text, shell=wanted)", "yaml.load(text)"),
        *("yaml.unsafe_load(text)", "torch.load(path)", "torch.load(path, weights_only=False)", "np.load(path)"),
        *("np.load(path, allow_pickle=True)", "joblib.load(path)", "pd.read_pickle(path)", "tempfile.mktemp()"),
        *("tar.extractall(folder)", "tar.extract(member, folder)", "table.query(text)", "spec.loader.exec_module(module)"),
    ],
)
def test_the_walk_sees_each_danger(source):
    assert list(dangers(source))


def test_the_walk_lets_the_safe_ways_pass():
    safe = "torch.load(p, weights_only=True); np.load(p, allow_pickle=False); yaml.safe_load(t); model.eval(); re.compile(t)\n"
    assert not list(dangers(safe + "tar.extract(m, f, filter='data'); subprocess.run([t]); table.query('a == @b')"))


def test_no_path_is_the_same_for_everybody_in_a_shared_folder():
    strings = [
        (name, node.value)
        for name, source in sources()
        if name.startswith("pradot/")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    assert strings and not [found for found in strings if re.search(r"(^|[^\w])/(tmp|var/tmp|dev/shm)\b", found[1])]


# Files of weights ---------------------------------------------------------------------------------------------------------


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("write", ["pickle", "torch", "inside a state dict", "old torch"])
def test_weights_that_are_code_are_refused_and_not_run(here, capsys, ending, write):
    write_category(here, "own", n_train=2)
    evil, path = Evil(f"touch {here / 'owned'}"), here / f"w.{ending}"
    if write == "pickle":
        path.write_bytes(pickle.dumps(evil))
    elif write == "inside a state dict":
        torch.save({**timm.create_model("test_resnet").state_dict(), "evil": evil}, path)
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=write == "torch")
    run = ["run", "--dataset", "folder", "--root", "own", "--encoder", "test_resnet", "--weights", str(path), "--device", "cpu"]
    assert main([*run, "--preset", "fast"]) == 1
    said = said_in_one_line(capsys)
    assert str(path) in said and "not a readable file of weights" in said and "weights_only=False" not in said
    assert not (here / "owned").exists() and not (here / "runs").exists()


@pytest.mark.parametrize("content", [{3: torch.zeros(2)}, {"state_dict": [1]}, {"a": {"b": torch.zeros(2)}}, torch.zeros(3)])
def test_weights_of_another_shape_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(PradotError, match="holds no tensors by name"):
        Encoder("test_resnet", weights=tmp_path / "w.pth")


# Archives -----------------------------------------------------------------------------------------------------------------


def tar_of(path, *members, mode="w", **settings):
    with tarfile.open(path, mode, **settings) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def zip_of(path, *members):
    with zipfile.ZipFile(path, "w") as packed:
        for name, content in members:
            info = zipfile.ZipInfo("x" * len(name))
            info.filename = name  # as it is, backslashes too
            packed.writestr(info, content)
    return path


@pytest.fixture
def into(tmp_path):
    (tmp_path / "deep" / "into").mkdir(parents=True)
    return tmp_path / "deep" / "into"


OUTSIDE = [
    "C:evil",
    "C:\\evil",
    "c:/evil",
    "a/C:evil",
    "\\\\host\\share\\evil",
    "//host/evil",
    "a\\..\\..\\evil",
    "a/b.png:evil",
]


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("name", OUTSIDE)
def test_names_of_other_systems_that_lead_outside_are_refused(into, make, name):
    with pytest.raises(PradotError, match=r"not safe to unpack: .* leads outside"):
        unpack(make(into.parent / "a", (name, b"evil")), into)
    assert files_in(into.parent) == ["a"]


@pytest.mark.parametrize("make", [tar_of, zip_of])
@pytest.mark.parametrize("second", ["a/1.png", "./a/1.png", "a//1.png"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_comes_twice_is_refused(into, make, second):
    with pytest.raises(PradotError, match="is in it twice"):
        unpack(make(into.parent / "archive", ("a/1.png", b"good"), (second, b"evil")), into)
    assert (into / "a" / "1.png").read_bytes() == b"good"


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_names_that_differ_in_case_stay_two_files_or_are_refused(into, make):
    archive = make(into.parent / "archive", ("a/x.png", b"good"), ("a/X.png", b"evil"))
    (into.parent / "Case").touch()
    if (into.parent / "case").exists():  # a file system where they are one
        with pytest.raises(PradotError, match="twice"):
            unpack(archive, into)
    else:
        unpack(archive, into)
        assert (into / "a" / "x.png").read_bytes() == b"good" and (into / "a" / "X.png").read_bytes() == b"evil"


def test_a_link_that_is_replaced_by_a_file_is_refused_at_the_link(into):
    (into.parent / "secret").write_text("mine")
    with tarfile.open(into.parent / "a.tar", "w") as tar:
        link = tarfile.TarInfo("a")
        link.type, link.linkname = tarfile.SYMTYPE, "../secret"
        tar.addfile(link)
        info = tarfile.TarInfo("a")
        info.size = 4
        tar.addfile(info, io.BytesIO(b"evil"))
    with pytest.raises(PradotError, match="link or a device"):
        unpack(into.parent / "a.tar", into)
    assert (into.parent / "secret").read_text() == "mine" and files_in(into) == []


def test_a_sparse_file_counts_with_all_its_holes(into):
    """A few hundred bytes that say they are a terabyte of zeros, as GNU tar writes them."""
    info = tarfile.TarInfo("holes.png")
    info.pax_headers = {"GNU.sparse.size": str(2**40), "GNU.sparse.numblocks": "1", "GNU.sparse.map": "0,0"}
    with tarfile.open(into.parent / "a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    with pytest.raises(PradotError, match="far more than images"):
        unpack(into.parent / "a.tar", into)
    assert files_in(into) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_a_long_name_that_would_fill_the_memory_is_refused(into, is_first):
    """What a tar header adds is read into memory at once: 200 MB of it compress to 30 kB."""
    first = [] if is_first else [("a.png", b"good")]
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 200_000_000
    with tarfile.open(into.parent / "a.tar.xz", "w:xz", preset=0) as tar:
        for name, content in first:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        tar.fileobj.write(info.tobuf(tarfile.GNU_FORMAT))
        for _ in range(20):
            tar.fileobj.write(bytes(1 << 20))
    with pytest.raises(PradotError, match="not safe to unpack: a header of 200000000 bytes"):
        unpack(into.parent / "a.tar.xz", into)


@pytest.mark.parametrize("size", [-512, -(2**40)])
def test_a_negative_size_gives_no_credit(into, size):
    """A header may hold a negative number; in words (pax) or as bits."""
    in_words = tarfile.TarInfo("a.png")
    in_words.pax_headers = {"size": str(size)}
    as_bits = tarfile.TarInfo("a.png")
    for number, info in enumerate([in_words, as_bits]):
        with tarfile.open(into.parent / f"{number}.tar", "w", format=tarfile.PAX_FORMAT) as tar:
            tar.addfile(info)
    raw = bytearray((into.parent / "1.tar").read_bytes())
    raw[124:136] = (size % (256**12)).to_bytes(12, "big")
    raw[148:156] = b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    (into.parent / "1.tar").write_bytes(raw)
    for number in range(2):
        with pytest.raises(PradotError, match=r"a\.png' is of -|a header of -|cannot be unpacked"):
            unpack(into.parent / f"{number}.tar", into)
    assert files_in(into) == []


def test_zeros_after_the_end_are_not_read_for_ever(into, monkeypatch):
    monkeypatch.setattr(unpacking, "MAX_EXTRA", 1_000_000)
    with tarfile.open(into.parent / "a.tar.xz", "w:xz", preset=0) as tar:
        tar.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
        tar.fileobj.write(bytes(10_240))
        for _ in range(8):
            tar.fileobj.write(bytes(1 << 20))
    with pytest.raises(PradotError, match="far more than images"):
        unpack(into.parent / "a.tar.xz", into)


@pytest.mark.parametrize("make", [tar_of, zip_of])
def test_a_file_in_the_place_of_a_folder_is_an_error(into, make):
    with pytest.raises(PradotError, match=r"archive (cannot be unpacked|is not safe)"):
        unpack(make(into.parent / "archive", ("a", b"file"), ("a/b.png", b"evil")), into)


def test_what_is_unpacked_can_run_and_bind_nobody(into):
    with tarfile.open(into.parent / "a.tar", "w") as tar:
        info = tarfile.TarInfo("a.png")
        info.mode, info.uid, info.gid = 0o7777, 12345, 12345
        tar.addfile(info, io.BytesIO())
    unpack(into.parent / "a.tar", into)
    found = (into / "a.png").stat()
    assert stat.S_IMODE(found.st_mode) & 0o7022 == 0 and found.st_uid == os.getuid()


# Notebook parameters and make ---------------------------------------------------------------------------------------------

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
@given(
    st.recursive(
        st.text() | st.integers() | st.booleans() | st.none(), lambda one: st.lists(one) | st.dictionaries(st.text(), one)
    )
)
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


# Models and records -------------------------------------------------------------------------------------------------------


def rewritten(folder, change):
    """A model whose settings are changed in both of its files, as somebody would who wants them to fit."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    text = json.dumps(config, indent=1) + "\n"
    (folder / "config.json").write_text(text)
    save_sealed(load_sealed(folder / "model.safetensors")[0], folder / "model.safetensors", {"config": text})


@pytest.fixture
def model(here, tiny_encoder, draw):
    Pradot(tiny_encoder, branches=[(3, 0.0)], n_prototypes=1, n_epochs=1, n_iter=2).fit(draw(4, 0)).save(here / "model")
    return here / "model"


@pytest.mark.parametrize("name", ["cache", "progress", "encoder", "__class__", "../../x"])
def test_a_model_has_no_say_in_where_it_is_used(model, tiny_encoder, draw, name):
    """A model that brings the setting `cache` would have scoring write into that folder."""
    rewritten(model, lambda config: config["settings"].update({name: str(model.parent / "elsewhere")}))
    with pytest.raises(PradotError, match="settings that no model has"):
        Pradot.load(model, encoder=tiny_encoder).anomaly_scores(draw(1, 1))
    assert not (model.parent / "elsewhere").exists()


@pytest.mark.parametrize("source", ["made by evil.py", "timm evil", ""])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_model_does_not_run_the_file_that_it_names(model, here, capsys, source, absolute, draw):
    (here / "evil.py").write_text("open('owned', 'w')\ndef build(): pass\n")
    name = f"{here / 'evil.py'}:build" if absolute else "evil.py:build"
    rewritten(model, lambda config: config["encoder"].update(name=name, weights_source=source))
    Image.fromarray(draw(1, 1)[0]).save(here / "a.png")
    (here / "w.pth").write_bytes(b"")
    predict = ["predict", "--model", "model", "--images", ".", "--out", "out", "--device", "cpu"]
    for more in ([], ["--weights", "w.pth"]):
        assert main([*predict, *more]) == 1
        said_in_one_line(capsys)
    assert not (here / "owned").exists() and not (here / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        *({"encoder": None}, {"encoder": {}}, {"settings": []}, {"settings": {"branches": 3}}, {"format": [3]}),
        *({"encoder": {"name": ["x"]}}, {"encoder": {"name": {"a": 1}}}),
    ],
)
def test_a_model_of_other_kinds_is_refused_in_one_line(model, here, capsys, change, draw):
    rewritten(model, lambda config: config.update(change))
    Image.fromarray(draw(1, 1)[0]).save(here / "a.png")
    assert main(["predict", "--model", "model", "--images", ".", "--out", "out", "--device", "cpu"]) == 1
    assert "model" in said_in_one_line(capsys)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "1" * 5000 + "}", "\x00", "null"])
def test_json_made_to_break_the_reader_is_refused(model, here, capsys, text, draw):
    Image.fromarray(draw(1, 1)[0]).save(here / "a.png")
    (model / "config.json").write_text(text)
    assert main(["predict", "--model", "model", "--images", ".", "--out", "out"]) == 1
    assert "model" in said_in_one_line(capsys)
    (here / "runs").mkdir()
    (here / "runs" / "a.json").write_text(text)
    assert main(["tables", "--runs", "runs", "--out", "tables"]) == 1
    assert "a.json is not a whole run record" in said_in_one_line(capsys)


def test_a_model_is_not_saved_through_a_link(model, here, tiny_encoder):
    detector = Pradot.load(model, encoder=tiny_encoder)
    (here / "mine").write_text("mine")
    for name in ("model.safetensors", "config.json"):
        (model / name).unlink()
        (model / name).symlink_to(here / "mine")
    detector.save(model)
    assert (here / "mine").read_text() == "mine" and not (model / "config.json").is_symlink()
    Pradot.load(model, encoder=tiny_encoder)


XSS = "<img src=x onerror=alert(1)>"
LATEX = r"\input{/etc/passwd}\write18{touch owned}$\href{javascript:alert(1)}{x}$"
CELL = '=HYPERLINK("http://evil")|`x`'


def record_of(**changes):
    encoder = {"name": "e", "weights_source": "timm", "weights_sha256": "ab" * 32, "image_size": 224}
    record = {
        **{"format": 1, "label": "fast", "dataset": "mvtec_ad", "category": "bottle", "settings": {"batch_size": 4}},
        **{"evaluation_size": None, "encoder": encoder, "seed": 0, "metrics": {"image_auroc": 0.9, "pixel_auroc": 0.8}},
        **{"by_defect": {"scratch": {"image_auroc": 0.9}}, "image_shapes": {"8x8": 1}, "branches": [{"steps": 2}]},
        **{"versions": {"pradot": "0", "torch": "2", "timm": "1"}, "created": "2026"},
    }
    return record | changes | {"encoder": encoder | changes.get("encoder", {})}


@pytest.mark.parametrize("text", [XSS, LATEX, CELL, "../../../owned", "/tmp/owned/x", "a\n\n# b\x1b[2J", "..", "\udcff"])
def test_tables_show_and_name_what_records_say_without_harm(tmp_path, text):
    changes = {
        **{"dataset": text, "category": text, "label": text, "image_shapes": {text: 1}},
        **{"encoder": {"name": text, "weights_source": text, "weights_sha256": text}},
        **{"by_defect": {text: {"image_auroc": 0.9}}, "versions": {"pradot": text, "torch": "2", "timm": "1"}},
    }
    runs = tmp_path / "deep" / "runs"
    runs.mkdir(parents=True)
    (runs / "a.json").write_text(json.dumps(record_of(**changes)))
    (runs / "b.json").write_text(json.dumps(record_of(**changes | {"dataset": "mvtec_ad"})))
    written = write_tables(runs, runs.parent / "tables")
    assert written and {path.split("/")[0] for path in files_in(tmp_path)} == {"deep"}
    assert {path.split("/")[0] for path in files_in(tmp_path / "deep")} == {"runs", "tables"}
    assert not Path("/tmp/owned").exists()
    for path in (tmp_path / "deep" / "tables").iterdir():
        content = path.read_text()
        assert not set(content) & {"\x1b", "\udcff"} and "<img" not in content and "`x`" not in content
        if path.suffix == ".tex":
            assert "\\input" not in content and "\\write" not in content and "\\href" not in content
        if path.suffix == ".csv":
            assert not [cell for row in csv.reader(io.StringIO(content)) for cell in row if cell[:1] in ("=", "@")]
    said = conditions(as_rows([record_of(**changes)]))  # a notebook shows it as Markdown
    assert not set(said) & set("<>`$\\|\x1b\n")


@pytest.mark.parametrize(
    "changes",
    [
        *({"dataset": 3}, {"category": ["a"]}, {"label": None}, {"metrics": []}, {"metrics": {"image_auroc": "0.9"}}),
        *({"metrics": {"dataset": "../../x"}}, {"by_defect": {"a": 3}}, {"settings": None}, {"versions": "1"}),
    ],
)
def test_a_record_of_other_kinds_is_none(tmp_path, changes):
    (tmp_path / "a.json").write_text(json.dumps(record_of(**changes)))
    with pytest.raises(PradotError, match=r"a\.json is not a whole run record"):
        read_record(tmp_path / "a.json")


def test_a_metric_takes_no_other_columns_place(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text(
        json.dumps(record_of(metrics={"image_auroc": 0.9, "dataset": 0.1, "record": 0.2}))
    )
    assert set(write_tables(tmp_path / "runs", tmp_path / "tables")) >= {"mvtec_ad-fast-e"}


# Names of images and folders ----------------------------------------------------------------------------------------------

NAMES = [
    "=1+1.png",
    "-x.png",
    "@a.png",
    "+1.png",
    "a\nb.png",
    "\x1b[2J.png",
    f"{XSS}.png",
    'a,b".png',
    "...png",
    "a;b $(x).png",
]


def test_heat_maps_and_scores_of_images_with_any_names(tmp_path):
    paths = [tmp_path / "in" / name for name in NAMES]
    try:
        raw = os.fsdecode(b"\xff.png")
        (tmp_path / raw).touch()
        paths.append(tmp_path / "in" / raw)
    except OSError:  # a file system whose names are UTF-8
        pass
    out = tmp_path / "out"
    write_predictions(out, paths, [np.ones((2, 2), np.float32)] * len(paths))
    assert files_in(out) == sorted(["scores.csv", *(f"heat_maps/{path.name}.png" for path in paths)])
    with (out / "scores.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["file"] for row in csv.DictReader(file)]
    as_text = [path.name.encode("utf-8", "backslashreplace").decode() for path in paths]
    assert [os.path.normpath(cell) for cell in cells] == as_text
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_a_terminal_is_told_no_escape_sequences(here, capsys):
    (here / "in").mkdir()
    (here / "in" / "\x1b]0;owned\x07\x1b[2J.png").write_bytes(b"")
    assert main(["run", "--dataset", "folder", "--root", "in", "--encoder", write_encoder(here), "--preset", "fast"]) == 1
    said = said_in_one_line(capsys)
    assert "\x1b" not in said and "\\x1b[2J.png" in said
    assert shown("a\nb\t\x9b") == "a\nb\\t\\x9b"


@given(st.text())
def test_inert_text_has_no_signs_that_mean_something(text):
    said = inert(text)
    assert said.isprintable() and not set(said) & set('<>&|`$\\^~{}[]"\n') and said[:1] not in tuple("=+-@")
    said.encode()  # also what no file system should hold
    assert inert(said) == said
    assert os.path.normpath(file_cell("=x")) == "=x" and file_cell("x=") == "x="


@pytest.mark.parametrize("name", ["...txt", "..txt"])
def test_a_list_does_not_name_its_category_after_another_folder(here, capsys, name):
    write_category(here / "data", "own", n_train=2)
    (here / "lists").mkdir()
    (here / "lists" / name).write_text("../data/own/train/good/000.png\n../data/own/train/good/001.png\n")
    run = ["run", "--dataset", "folder", "--root", f"lists/{name}", "--encoder", write_encoder(here), "--preset", "fast"]
    assert main([*run, "--out", "deep/runs", "--save-model", "deep/models"]) == 1
    assert "rename it" in said_in_one_line(capsys) and not (here / "deep").exists()


def test_a_list_that_names_anothers_home_is_an_error(here, capsys):
    (here / "list.txt").write_text("~nobody-of-this-name/a.png\n")
    assert main(["run", "--dataset", "folder", "--root", "list.txt", "--encoder", write_encoder(here)]) == 1
    assert "line 1: ~nobody-of-this-name/a.png" in said_in_one_line(capsys)


@pytest.mark.parametrize("mask", ["../secret.png", "/secret.png", "candle/../../secret.png"])
def test_visas_table_names_no_masks_elsewhere(tmp_path, mask):
    root = write_visa(tmp_path / "visa", ("candle",))
    Image.new("L", (24, 24), 255).save(tmp_path / "secret.png")
    split = root / "split_csv" / "1cls.csv"
    split.write_text(
        split.read_text().replace(
            "candle/Data/Masks/Anomaly/000.png", mask.replace("/secret", f"{tmp_path}/secret") if mask[0] == "/" else mask
        )
    )
    with pytest.raises(PradotError, match="leads outside the data set"):
        load_category("visa", root, "candle")


def test_a_category_is_one_that_is_found(here, capsys):
    write_category(here / "data", "own", n_train=2)
    (here / "data" / "x").mkdir()
    for category in ("../data/own", "own/../own", "/etc", "..", ""):
        run = ["run", "--dataset", "mvtec_ad", "--root", "data", "--category", category, "--encoder", write_encoder(here)]
        assert main([*run, "--preset", "fast", "--save-model", "models"]) == 1
        assert "No category" in said_in_one_line(capsys)
    assert not (here / "runs").exists() and not (here / "models").exists()


# The network --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def connections(monkeypatch):
    """What was connected to or looked up; all of it fails."""
    asked = []

    def refuse(*words, **_):
        asked.append(words[-1] if len(words) < 3 else words[:2])
        raise OSError("no network in this test")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("getaddrinfo", "gethostbyname", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    return asked


def test_commands_that_need_no_network_do_not_ask_for_it(here, connections, capsys):
    write_category(here / "mvtec_ad", "own", n_train=2, n_good=1, n_bad=1)
    encoder = ["--encoder", write_encoder(here), "--device", "cpu"]
    few = ["--preset", "fast", "--max-steps", "1", "--batch-size", "2"]
    of = ["--dataset", "mvtec_ad", "--root", "mvtec_ad"]
    images = ["--images", "mvtec_ad/own/test/good", "--out", "scores"]
    for command in (
        ["run", *of, *few, *encoder, "--save-model", "models"],
        ["predict", "--model", "models/own", *images, *encoder],
        ["bench", *of, *few, *encoder],
        ["tables", "--out", "tables"],
        ["data", "--root", "."],
        ["doctor", "--root", "."],
    ):
        assert main(command) == 0, capsys.readouterr().err
    assert Encoder("tf_efficientnet_lite0", scales=(1,), image_size=32).weights_source.startswith("package")
    assert connections == []
    assert "resnet50.a1_in1k: NOT available (not downloaded before" in capsys.readouterr().out


def test_the_test_above_would_see_a_connection(here, connections):
    assert weights_available("resnet50.a1_in1k")[0] is False and connections


@pytest.mark.parametrize("switch", [SWITCH, HUB_SWITCH, "--offline"])
def test_no_weights_are_asked_for_where_the_network_is_forbidden(here, connections, monkeypatch, capsys, switch):
    write_category(here, "own", n_train=2)
    run = [
        "run",
        "--dataset",
        "folder",
        "--root",
        "own",
        "--encoder",
        "resnet50.a1_in1k",
        "--preset",
        "fast",
        "--device",
        "cpu",
    ]
    if switch.startswith("--"):
        run.append(switch)
    else:
        monkeypatch.setenv(switch, "1")
    assert main(run) == 1
    said = said_in_one_line(capsys)
    name = SWITCH if switch == "--offline" else switch
    assert "weights of resnet50.a1_in1k cannot be had" in said and f"{name} forbids the network; to allow it" in said
    with offline(switch == "--offline"):
        encoder, note = default_encoder()
    assert encoder == "tf_efficientnet_lite0" and name in note
    assert connections == [] and (switch == SWITCH) == (SWITCH in os.environ)


@pytest.mark.parametrize("by", ["word", "environment"])
def test_no_data_are_downloaded_where_the_network_is_forbidden(here, connections, monkeypatch, capsys, by):
    monkeypatch.setattr(archives, "_check_space", lambda *_: None)
    get = ["data", "get", "visa", "--accept-licence", "--root", "data"]
    if by == "environment":
        monkeypatch.setenv(SWITCH, "yes")
    assert main(get + ["--offline"] * (by == "word")) == 1
    said = said_in_one_line(capsys)
    assert "downloading http" in said and f"{SWITCH} forbids the network" in said and connections == []
    assert files_in(here) == []
    monkeypatch.setenv(SWITCH, "0")
    monkeypatch.setattr(download, "WAIT", 0)
    assert main(get) == 1 and connections  # and would be, where it is not


def test_the_switch_reaches_processes_that_are_started_and_no_further(here, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "pradot.paper.tables.write_tables", lambda *_: seen.append((os.environ[SWITCH], os.environ[HUB_SWITCH])) or {}
    )
    assert main(["tables", "--offline"]) == 0
    assert seen == [("1", "1")] and SWITCH not in os.environ and HUB_SWITCH not in os.environ
    monkeypatch.setenv(SWITCH, "true")
    assert main(["tables"]) == 0 and seen[1:] == [("1", "1")] and os.environ[SWITCH] == "true"
    for off in ("", "0", "false", "no", "OFF"):
        monkeypatch.setenv(SWITCH, off)
        assert forbidden() is None


@pytest.mark.parametrize(
    ("address", "is_here"),
    [
        *(("tcp://127.0.0.1:8786", True), ("localhost:8786", True), ("tls://[::1]:8786", True), ("127.5.5.5:1", True)),
        *(("inproc://1", True), ("tcp://10.0.0.1:8786", False), ("tcp://127.0.0.1.evil.org:1", False), ("evil.org", False)),
        *(("tcp://127.0.0.1@evil.org:1", False), ("localhost.evil.org:1", False), ("", False), ("0.0.0.0:1", False)),
    ],
)
def test_addresses_of_this_machine(address, is_here):
    assert is_this_machine(address) is is_here


def test_no_scheduler_elsewhere_where_the_network_is_forbidden(here, connections, capsys):
    write_category(here, "own", n_train=2)
    run = [
        "bench",
        "--dataset",
        "folder",
        "--root",
        "own",
        "--encoder",
        write_encoder(here),
        "--device",
        "cpu",
        "--preset",
        "fast",
    ]
    assert main([*run, "--scheduler", "tcp://10.0.0.1:8786", "--offline"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"connecting to the Dask scheduler tcp://10.0.0.1:8786 is not done: {SWITCH} forbids" in said and connections == []


def test_the_package_starts_no_server():
    """Dask is a client of an address that was given, nothing else; nothing listens."""
    started = [
        (name, ast.unparse(node.func))
        for name, source in sources()
        if name.startswith("pradot/")
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call) and re.search(r"Cluster|Server|Scheduler|Worker|\.(bind|listen)$", ast.unparse(node.func))
    ]
    assert started == []


@pytest.mark.slow
def test_dasks_processes_as_the_readme_starts_them_listen_on_loopback_alone(tmp_path):
    """Without the words of `only`, a worker and both dashboards listen to the network; so they do with --no-dashboard."""
    dask, file = [sys.executable, "-m", "dask"], tmp_path / "scheduler.json"
    only = ["--host", "127.0.0.1", "--dashboard-address", "127.0.0.1:0"]
    started = [psutil.Popen([*dask, "scheduler", *only, "--port", "0", "--scheduler-file", str(file)])]

    def listening(process):
        processes = [process, *process.children(recursive=True)]
        return {c.laddr for one in processes for c in one.net_connections() if c.status == psutil.CONN_LISTEN}

    def wait_for(is_so):
        end = time.monotonic() + 120
        while not is_so():
            assert time.monotonic() < end
            time.sleep(0.2)

    try:
        wait_for(file.exists)
        worker = ["worker", "--scheduler-file", str(file), *only, "--nthreads", "1", "--local-directory", str(tmp_path)]
        started.append(psutil.Popen([*dask, *worker]))
        wait_for(lambda: len(listening(started[1])) >= 3)  # the nanny's, the worker's, its dashboard's
        found = [address.ip for process in started for address in listening(process)]
        assert len(found) >= 5 and set(found) == {"127.0.0.1"}
    finally:
        for process in reversed(started):
            for one in (*process.children(recursive=True), process):
                one.kill()
            process.wait()


# Packages and pages -------------------------------------------------------------------------------------------------------


def test_the_release_file_is_the_pins_with_hashes_and_names_no_host():
    text = (ROOT / "release.txt").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [re.fullmatch(r"([a-z0-9-]+)==([^\s;]+)((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", line) for line in lines]
    assert all(found), [line for line, match in zip(lines, found, strict=True) if not match]
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert sorted(f"{match[1]}=={match[2]}" for match in found) == sorted(pins)
    assert len(set(lines)) == len(lines) > 100
    hashes = [digest for match in found for digest in match[3].split()]
    assert len(set(hashes)) == len(hashes)
    assert not re.search(r"://|index-url|find-links|trusted-host|\w\.(org|com|net|io)\b", text)


def test_no_page_fetches_anything():
    """Pictures and scripts of the committed notebooks and of the book lie in them or beside them."""
    remote = re.compile(
        r"""<(script|iframe|link|img)\b[^>]*(src|href)\s*=\s*["']?(https?:)?//|@import|require\(\[""", re.IGNORECASE
    )
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            shown_as = [cell.source] if cell.cell_type == "markdown" else []
            shown_as += ["".join(out.get("data", {}).get("text/html", "")) for out in cell.get("outputs", [])]
            assert not any(remote.search(text) or "<script" in text.lower() for text in shown_as), path.name
    conf = (ROOT / "notebooks" / "book" / "conf.py").read_text()
    assert "nb_ipywidgets_js = {}" in conf and "mathjax_path = _mathjax.name" in conf and "http" not in conf
    assert remote.search('<script src="https://evil.org/x.js">') and remote.search("<img src=//evil.org/x>")
