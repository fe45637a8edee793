"""Build the HTML book: `make book`, or `python notebooks/book/build.py`.

The book's sources are laid out in build/book_sources as the project is: README.md as the start page, notebooks/, figures/.
Executed notebooks are taken from build/notebooks where they are there, else the committed ones. Nothing is executed here, and
nothing downloaded.
"""

import base64
import importlib.util
import re
import shutil
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PACKAGES = ("sphinx", "myst_nb", "numpydoc", "pydata_sphinx_theme", "sphinx-mathjax-offline")
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s]+)\)")
MODULES = re.compile(r"( *)\{modules of ([\w/]+)\}")
FIGURE = re.compile(r'save_figure\(fig, "([^"]+)"')


def lay_out(target, root=ROOT):
    """Write the book's sources.

    Parameters
    ----------
    target : Path
        Folder to write; what is there is removed.
    root : Path
        The project.

    Returns
    -------
    dict of str to str
        Notebook to where its page comes from, in words.
    """
    shutil.rmtree(target, ignore_errors=True)
    (target / "tests").mkdir(parents=True)
    for picture in (root / "tests").glob("*.png"):
        shutil.copy(picture, target / "tests")
    pages = {"index.md": (root / "README.md").read_text() + (HERE / "contents.md").read_text()}
    pages |= {name: (root / name).read_text() for name in ("CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md")}
    pages |= {page.name: page.read_text() for page in HERE.glob("*.md") if page.name != "contents.md"}
    for name, text in pages.items():
        text = LINK.sub(lambda link: _within_book(link, root), text)
        (target / name).write_text(MODULES.sub(lambda found: _module_lines(found, root), text))
    for name in ("CITATION.cff", "LICENSE"):
        shutil.copy(root / name, target)
    shutil.copytree(root / "figures", target / "figures", ignore=shutil.ignore_patterns("*.csv", "*.tex", "*.pdf"))
    for table in (target / "figures" / "tables").glob("*.md"):
        table.write_text(f"# {table.stem}\n\n{table.read_text()}")
    (target / "notebooks").mkdir()
    sources = {}
    for committed in sorted((root / "notebooks").glob("*.ipynb")):
        notebook, sources[committed.stem] = choose(committed, root)
        nbformat.write(notebook, target / "notebooks" / committed.name)
    return sources


def choose(committed, root=ROOT):
    """The notebook that the book shows for a committed one, and where it comes from.

    Returns
    -------
    notebook : NotebookNode
        The newest executed one of build/notebooks whose cells are those committed; else the committed one, which says at its
        beginning that it was not executed and shows the figures of figures/ if it has no outputs of its own.
    source : str
        In words.
    """
    notebook = nbformat.read(committed, as_version=4)
    executed = [
        *(root / "build" / "notebooks").glob(committed.name),
        *(root / "build" / "notebooks").glob(f"*/{committed.name}"),
    ]
    why = "it was not executed"
    for path in sorted(executed, key=lambda path: path.stat().st_mtime, reverse=True):
        candidate = nbformat.read(path, as_version=4)
        place = path.relative_to(root)
        if any(cell.cell_type == "code" and not cell.execution_count for cell in candidate.cells):
            why = f"{place} was not executed to its end"
        elif _cells(candidate) != _cells(notebook):
            why = f"{place} is of another version"
        else:
            return candidate, f"executed, {place}"
    if any(cell.get("outputs") for cell in notebook.cells):
        return notebook, f"as committed, with its outputs; {why}"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            pictures = [root / "figures" / f"{name}.png" for name in FIGURE.findall(cell.source)]
            cell.outputs = [_picture(path) for path in pictures if path.is_file()]
    note = (
        "```{note}\nThis notebook was not executed for this book: its pictures are those of `figures/`, and what its cells "
        "print is missing. `make tables book` executes all notebooks first.\n```"
    )
    notebook.cells.insert(1, nbformat.v4.new_markdown_cell(note))
    return notebook, f"as committed, with the pictures of figures/; {why}"


def build(target, sources):
    """Run Sphinx; warnings are errors. Returns its exit status."""
    from sphinx.cmd.build import main

    arguments = ["-q", "-W", "--keep-going", "-c", HERE, "-d", sources.parent / "book_doctrees", sources, target]
    return main([str(argument) for argument in arguments])


def _cells(notebook):
    """What somebody wrote in a notebook: kind and source of each cell, without the parameters given to a run."""
    written = [cell for cell in notebook.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    return [(cell.cell_type, cell.source) for cell in written]


def _picture(path):
    return nbformat.v4.new_output("display_data", {"image/png": base64.b64encode(path.read_bytes()).decode()})


def _within_book(link, root):
    """A Markdown link to a file of the project as the book has it; folders have no page, and only their name stays."""
    text, file = link.groups()
    if file == "README.md":
        return f"[{text}](index.md)"
    return text if (root / file).is_dir() else link.group()


def _module_lines(found, root):
    """One line for each public module of a package, and for each package in it that the page does not list by itself."""
    indent, package = found.groups()
    listed = {name for _, name in MODULES.findall(found.string)}
    files = [*(root / package).glob("*.py"), *(path.parent for path in (root / package).glob("*/__init__.py"))]
    stems = sorted(file.stem for file in files if not file.stem.startswith("_") and f"{package}/{file.stem}" not in listed)
    return "\n".join(f"{indent}{package.replace('/', '.')}.{stem}" for stem in stems)


def main():
    """Lay out, say what is shown, build, say where."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        print(f"error: {', '.join(missing)}: not installed; `make book` installs what it needs", file=sys.stderr)
        return 1
    sources, target = ROOT / "build" / "book_sources", ROOT / "build" / "book"
    for name, source in lay_out(sources).items():
        print(f"{name}: {source}")
    status = build(target, sources)
    if status:
        print("error: the book has faults, named above; what could be built is in build/book", file=sys.stderr)
        return status
    print(f"The book: {(target / 'index.html').as_uri()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
