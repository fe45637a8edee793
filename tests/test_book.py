"""The HTML book: its sources come from what the project holds, and Sphinx builds it without a warning or a network."""

import fnmatch
import importlib.util
import os
import pkgutil
import re
from pathlib import Path

import nbformat
import pytest

import pradot
import pradot.paper

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("build_book", ROOT / "notebooks" / "book" / "build.py")
book = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(book)

NOTEBOOKS = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (pradot, pradot.paper)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.name.startswith("_") and (package, module.name) != (pradot, "paper")  # which is listed module by module
]


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("book") / "sources"
    assert sorted(book.lay_out(folder)) == NOTEBOOKS
    return folder


def listed(page):
    """What the toctrees and summaries of a page name."""
    return re.findall(r"^ *([\w./\[\]*-]+)$", page.read_text(), re.MULTILINE)


def test_every_notebook_and_every_public_module_is_in_the_index(sources):
    assert {"notebooks", "api", "tables"} <= set(listed(sources / "index.md"))
    patterns = listed(sources / "notebooks.md")
    for name in NOTEBOOKS:
        assert any(fnmatch.fnmatch(f"notebooks/{name}", pattern) for pattern in patterns), name
        assert (sources / "notebooks" / f"{name}.ipynb").is_file()
    assert len(MODULES) > 20
    names = listed(sources / "api.md")
    assert set(MODULES) <= set(names) and "pradot.paper" not in names


def test_links_of_the_pages_lead_to_files_of_the_book(sources):
    targets = [
        (page.name, target)
        for page in sources.glob("*.md")
        for target in re.findall(r"\]\((?!https?:|#)([^)\s]+)\)", page.read_text())
    ]
    assert ("CONTRIBUTING.md", "index.md") in targets
    assert [(page, target) for page, target in targets if not (sources / target).is_file()] == []


@pytest.fixture
def project(tmp_path):
    """A project of one notebook that draws a figure; its executed copy may be put to ``build/notebooks``."""
    for folder in ("notebooks", "figures", "build/notebooks", "build/notebooks/mvtec_ad"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "figures" / "00_a.png").write_bytes(b"a picture")
    cells = [
        nbformat.v4.new_markdown_cell("# 00 First"),
        nbformat.v4.new_code_cell("n = 1", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell('save_figure(fig, "00_a")'),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "notebooks" / "00_first.ipynb")
    return tmp_path


def execute(project, folder=".", end=True):
    """Write an executed copy as papermill does: with the given parameters in a cell of their own, and outputs."""
    notebook = nbformat.read(project / "notebooks" / "00_first.ipynb", as_version=4)
    notebook.cells.insert(2, nbformat.v4.new_code_cell("n = 2", metadata={"tags": ["injected-parameters"]}))
    for count, cell in enumerate(notebook.cells[1 : None if end else -1], start=1):
        cell.execution_count = count
    notebook.cells[3].outputs = [nbformat.v4.new_output("stream", text=f"ran in {folder}")]
    path = project / "build" / "notebooks" / folder / "00_first.ipynb"
    nbformat.write(notebook, path)
    return path


def test_a_notebook_that_was_not_executed_says_so_and_shows_the_committed_figures(project):
    notebook, source = book.choose(project / "notebooks" / "00_first.ipynb", project)
    assert source == "as committed, with the pictures of figures/; it was not executed"
    assert "was not executed" in notebook.cells[1].source
    assert notebook.cells[2].outputs == []
    assert [output.data["image/png"] for output in notebook.cells[3].outputs] == ["YSBwaWN0dXJl"]
    nbformat.validate(notebook)


def test_the_newest_executed_notebook_is_shown(project):
    older, newer = execute(project), execute(project, "mvtec_ad")
    os.utime(older, (1000, 1000))
    os.utime(newer, (2000, 2000))
    notebook, source = book.choose(project / "notebooks" / "00_first.ipynb", project)
    assert source == "executed, build/notebooks/mvtec_ad/00_first.ipynb"
    assert [cell.source for cell in notebook.cells] == ["# 00 First", "n = 1", "n = 2", 'save_figure(fig, "00_a")']
    assert notebook.cells[3].outputs[0].text == "ran in mvtec_ad"


def test_an_executed_notebook_of_another_version_or_not_to_its_end_is_not_shown(project):
    committed = project / "notebooks" / "00_first.ipynb"
    execute(project, end=False)
    assert book.choose(committed, project)[1].endswith("build/notebooks/00_first.ipynb was not executed to its end")
    execute(project)
    notebook = nbformat.read(committed, as_version=4)
    notebook.cells[0].source = "# 00 First, rewritten"
    nbformat.write(notebook, committed)
    shown, source = book.choose(committed, project)
    assert source.endswith("build/notebooks/00_first.ipynb is of another version")
    assert shown.cells[0].source == "# 00 First, rewritten"


def test_outputs_that_were_committed_are_shown(project):
    committed = project / "notebooks" / "00_first.ipynb"
    notebook = nbformat.read(committed, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="committed")]
    nbformat.write(notebook, committed)
    shown, source = book.choose(committed, project)
    assert source.startswith("as committed, with its outputs")
    assert shown.cells == notebook.cells


@pytest.mark.slow
def test_the_book_is_built_without_warnings_and_asks_no_other_host(sources, tmp_path):
    if not all(map(importlib.util.find_spec, book.PACKAGES)):
        pytest.skip("what the book is built with is not installed; `make book` does it")
    assert book.build(tmp_path, sources) == 0
    for name in [f"notebooks/{name}" for name in NOTEBOOKS] + [f"generated/{name}" for name in MODULES] + ["search"]:
        assert (tmp_path / f"{name}.html").is_file(), name
    assert "sinkhorn" in (tmp_path / "searchindex.js").read_text()
    formulas = (tmp_path / "notebooks" / "02_cost.html").read_text()
    assert re.search(r'<script[^>]* src="\.\./_static/tex-svg\.js', formulas)
    assert (tmp_path / "_static" / "tex-svg.js").stat().st_size > 1_000_000
    remote = re.compile(r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"')
    styles = re.compile(r"(?:@import|url\()\s*[\"']?(?:https?:)?//[^)]*")
    asked = [match for page in tmp_path.rglob("*.html") for match in remote.findall(page.read_text())]
    asked += [match for sheet in tmp_path.rglob("*.css") for match in styles.findall(sheet.read_text())]
    assert asked == []
