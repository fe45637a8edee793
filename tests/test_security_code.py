"""Attacks on the code itself: what runs what a file holds, a server that listens, pages and pins that lead elsewhere."""

import ast
import functools
import json
import re
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parent.parent


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
    ("tests/test_security_models.py", "import pickle"): "to make hostile files",
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
