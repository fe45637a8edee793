"""The notebooks: what they share at their start, and how they are run in order by papermill."""

import os
import sys
import time
from pathlib import Path

import nbformat
import papermill
import psutil
from jupyter_client.kernelspec import NoSuchKernel
from papermill.exceptions import PapermillExecutionError
from papermill.iorw import LocalHandler, papermill_io

import pradot
from pradot.encoder import cache_folder, default_encoder
from pradot.errors import PradotError, printable
from pradot.files import replacing
from pradot.paper.committed import keep_outputs
from pradot.paper.datasets import find_root, list_categories, load_category
from pradot.paper.provenance import device_name, versions

PATH_PARAMETERS = ("root", "weights", "runs", "tables", "real_root", "normal", "new")
"""Notebook parameters that are paths."""


class _WholeFiles(LocalHandler):
    """Papermill's writing of a notebook after each cell, in one step."""

    def write(self, buf, path):
        with replacing(path) as temporary:
            temporary.write_text(buf, encoding="utf-8")


def project_root():
    """The folder that holds notebooks/ and figures/: the one the package lies in, else the current folder or one above it."""
    package = Path(pradot.__file__).parent.parent
    for folder in (package, Path.cwd(), *Path.cwd().parents):
        if (folder / "notebooks").is_dir() and (folder / "pyproject.toml").is_file():
            return folder
    raise PradotError(f"no project folder with notebooks/ above {package} or {Path.cwd()}: run from a clone of the project")


def open_category(dataset="drawn", root=None, category=None):
    """The category a notebook works on.

    Parameters
    ----------
    dataset : str
        See `pradot.paper.catalogue.DATASETS`.
    root : str or Path, optional
        Folder of the data set. None: it is looked for where ``PRADOT_DATA`` says, else in ``data`` of the project, where the
        drawn data are drawn if missing.
    category : str, optional
        None or ``"all"``: the first one found.

    Returns
    -------
    Category
    """
    root = data_root(dataset, root)
    if category in (None, "all"):
        category = list_categories(dataset, root)[0]
    return load_category(dataset, root, category)


def data_root(dataset, root=None):
    """Folder of a data set, see `pradot.paper.catalogue.find_root`."""
    return find_root(dataset, root, project=project_root())


def describe_setting(encoder=None):
    """Print versions, and the encoder's weights, feature maps and device: the conditions of a notebook's numbers."""
    print(", ".join(f"{name} {version}" for name, version in versions().items() if name != "commit"))
    if encoder is not None:
        print(f"encoder {encoder.name}, weights: {encoder.weights_source}, sha256 {encoder.weights_sha256[:16]}...")
        print(
            f"image size {encoder.image_size} px, feature maps {encoder.describe_grids()}, device {device_name(encoder.device)}"
        )


def is_headless():
    """Whether nobody sees the notebook run: ``PRADOT_HEADLESS`` is set, or the kernel was started by papermill or nbconvert."""
    if os.environ.get("PRADOT_HEADLESS"):
        return True
    try:
        parents = psutil.Process().parents()[:1]
        words = {Path(word).name for parent in parents for word in parent.cmdline()[:3]}
    except psutil.Error:  # another user's process
        return False
    return bool(words & {"papermill", "nbconvert", "jupyter-nbconvert", "jupyter-execute"})


def find_notebooks(names=()):
    """The notebooks in order.

    Parameters
    ----------
    names : sequence of str
        Which of them: whole names (``06_benchmark``) or their numbers (``06``). Empty: all.

    Returns
    -------
    list of Path

    Raises
    ------
    PradotError
        A name fits none.
    """
    found = sorted((project_root() / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    chosen = []
    for name in names:
        stem = Path(name).stem
        fits = [path for path in found if path.stem == stem or path.stem.split("_")[0] == stem]
        if not fits:
            raise PradotError(f"no notebook {name!r}; there are {', '.join(path.stem for path in found)}")
        chosen += fits
    return sorted(set(chosen)) if names else found


def run_notebooks(names=(), parameters=None, out=None, keep=False):
    """Run notebooks in order; one printed line each with its time; stop at the first that fails.

    Parameters
    ----------
    names : sequence of str
        See `find_notebooks`.
    parameters : dict of str to value, optional
        Each goes to those notebooks that have it; one that none of them has is an error. Paths are relative to the current
        folder, and an encoder ``auto`` is settled once for all notebooks.
    out : str or Path, optional
        Folder of the executed notebooks; ``build/notebooks`` of the project by default.
    keep : bool
        Also write the outputs into the notebooks themselves, as they are committed: then there are no `parameters`.

    Returns
    -------
    list of Path
        The executed notebooks.

    Raises
    ------
    PradotError
        Unknown notebook or parameter, a cell failed, or the kernel died; the message names notebook, cell and error.
    """
    paths, parameters = find_notebooks(names), dict(parameters or {})
    if keep and parameters:
        raise PradotError(
            f"notebooks are committed as they run without parameters, not with {', '.join(sorted(parameters))}: leave them or "
            "--keep-outputs away"
        )
    known = {path: set(papermill.inspect_notebook(str(path))) for path in paths}
    unknown = set(parameters) - set().union(*known.values())
    if unknown:
        choice = ", ".join(sorted(set().union(*known.values())))
        named = printable(", ".join(sorted(unknown)))
        raise PradotError(f"unknown notebook parameter {named}; these notebooks know {choice}")
    parameters = {name: _from_here(name, value) for name, value in parameters.items()}
    os.environ["PRADOT_CACHE"] = str(cache_folder().absolute())
    if os.environ.get("PRADOT_DATA"):
        os.environ["PRADOT_DATA"] = str(Path(os.environ["PRADOT_DATA"]).expanduser().absolute())
    os.environ.pop("PRADOT_AUTO_NOTE", None)
    if parameters.get("encoder") == "auto" and not parameters.get("weights"):
        encoder, note = default_encoder()
        if note:
            print(f"note: {note}", flush=True)
            os.environ["PRADOT_AUTO_NOTE"] = note  # the kernels' `auto` is the same, and the run records say why
        else:
            parameters["encoder"] = encoder
    out = (Path(out) if out is not None else project_root() / "build" / "notebooks").absolute()
    out.mkdir(parents=True, exist_ok=True)
    papermill_io.register(f"{out}/", _WholeFiles())
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")  # the kernel's debugger warns otherwise
    os.environ["PRADOT_HEADLESS"] = "1"
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # kernels share the cores with others: waiting threads do not spin
    executed = []
    live = sys.stdout.isatty()  # there a line stands from the start, and is written anew after bars have passed over it
    again = "\r" if live else ""
    for path in paths:
        start = time.perf_counter()
        if live:
            print(f"{path.stem} ...", end=" ", flush=True)
        target = out / path.name
        try:
            papermill.execute_notebook(
                str(path),
                str(target),
                parameters={name: value for name, value in parameters.items() if name in known[path]},
                kernel_name="python3",
                cwd=str(path.parent),
                progress_bar=False,
                # Its warnings would stand between our lines; and what goes to the terminal's stderr, as progress bars do, it
                # would take into the notebook.
                extra_arguments=["--IPKernelApp.log_level=50", "--IPKernelApp.capture_fd_output=False"],
            )
        except PapermillExecutionError as error:
            print(f"{again}{path.stem} ... failed", flush=True)
            raise PradotError(
                f"{path.stem} failed in cell {error.cell_index} ({_first_line(error.source)}): {error.ename}: {error.evalue}. "
                f"The notebook up to there is {target}"
            ) from error
        except NoSuchKernel as error:
            print(f"{again}{path.stem} ... failed", flush=True)
            raise PradotError(
                f"{path.stem} needs the Jupyter kernel python3, which is missing: pip install ipykernel in this environment"
            ) from error
        except RuntimeError as error:  # DeadKernelError, or the kernel died before it was ready
            print(f"{again}{path.stem} ... failed", flush=True)
            raise PradotError(
                f"{path.stem} failed in {_last_started(target)}: {error}. Most likely the kernel was ended because memory ran "
                "out: fewer images a step (batch_size) or the preset fast need less. "
                f"The notebook up to there is {target}"
            ) from error
        print(f"{again}{path.stem} ... {time.perf_counter() - start:.0f} s", flush=True)
        executed.append(target)
        if keep:
            keep_outputs(target, path, project_root())
    return executed


def _from_here(name, value):
    """A parameter that is a path, made absolute: kernels run in notebooks/, not where the user stands."""
    if name in PATH_PARAMETERS and value not in (None, ""):
        return str(Path(str(value)).absolute())
    if name in ("encoder", "real_encoder") and ":" in str(value):
        file, _, function = str(value).rpartition(":")
        return f"{Path(file).absolute()}:{function}"
    return value


def _last_started(path):
    """The last cell of an executed notebook that was started, in words."""
    cells = list(enumerate(nbformat.read(path, as_version=4).cells))
    started = [(i, cell) for i, cell in cells if cell.metadata.get("papermill", {}).get("start_time")]
    return f"cell {started[-1][0]} ({_first_line(started[-1][1].source)})" if started else "its start"


def _first_line(source):
    lines = [line for line in source.splitlines() if line.strip()]
    return lines[0] if lines else "empty cell"
