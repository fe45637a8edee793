"""Notebooks as they are committed: with the outputs of a run on the drawn data, so that they can be read without running.

Only what a reader sees is kept, without paths of a machine, tool metadata or live widgets; a stamp says which code made it.
"""

import base64
import hashlib
import io
import re

import nbformat
from PIL import Image

import pradot
from pradot.files import replacing

KINDS = ("image/png", "text/html", "text/markdown", "text/latex", "text/plain")
"""Kinds of output that are kept. A widget is not: it is an empty line to whoever has no kernel."""
MAX_BYTES = 500_000
"""Of a notebook with its outputs."""
SIZES = ((1000, 256), (800, 128), (650, 64), (500, 64))
"""Width and number of colours of kept pictures: the first with which a notebook is small enough, else the last. The figures at
their full size are in figures/."""


def stamp(notebook):
    """What tells outputs that are stale: the package's version and the hash of the notebook's code cells.

    A change of the package's code within a version, of torch or of the encoder is not told by it.

    Parameters
    ----------
    notebook : NotebookNode

    Returns
    -------
    dict of str to str
        ``version``; ``code_sha256`` over the sources of the code cells, in order.
    """
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    digest = hashlib.sha256("\0".join(sources).encode()).hexdigest()
    return {"version": pradot.__version__, "code_sha256": digest[:16]}


def keep_outputs(executed, path, root):
    """Write the outputs of an executed copy into the committed notebook.

    Parameters
    ----------
    executed : str or Path
        What papermill made of it, without parameters of the run.
    path : str or Path
        The committed notebook. Its cells stay as they are.
    root : Path
        The project: its paths become relative to notebooks/.
    """
    notebook, ran = (nbformat.read(file, as_version=4) for file in (path, executed))
    if [cell.source for cell in ran.cells] != [cell.source for cell in notebook.cells]:
        raise ValueError(f"{executed} is not of the cells of {path}")
    code = [cell for cell in ran.cells if cell.cell_type == "code"]
    if any(cell.execution_count is None or any(out.output_type == "error" for out in cell.outputs) for cell in code):
        raise ValueError(f"{executed} was not run to its end")
    places = {str(root): "..", str(root.resolve()): ".."}
    for size in SIZES:
        number = 0
        for cell, done in zip(notebook.cells, ran.cells, strict=True):
            if cell.cell_type == "code":
                number += 1
                cell.execution_count, cell.outputs = number, _merged(_kept(out, places, number, size) for out in done.outputs)
        if len(nbformat.writes(notebook).encode()) <= MAX_BYTES:
            break
    notebook.metadata["pradot"] = stamp(notebook)
    _write(notebook, path)


def tidy(path):
    """Take out of a notebook file what is never committed: tool metadata, live widgets, what goes to stderr."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = _merged(_kept(output, {}, cell.execution_count, SIZES[0]) for output in cell.outputs)
    _write(notebook, path)


def _write(notebook, path):
    for cell in notebook.cells:
        cell.metadata = {"tags": ["parameters"]} if "parameters" in cell.metadata.get("tags", []) else {}
    ours = {"pradot": notebook.metadata["pradot"]} if "pradot" in notebook.metadata else {}
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    } | ours
    with replacing(path) as temporary:
        nbformat.write(notebook, temporary)


def _kept(output, places, number, size):
    """An output as it is committed, or None."""
    if output.output_type == "stream":
        text = None if output.name == "stderr" else _shortened(output.text, places)
        return nbformat.v4.new_output("stream", name="stdout", text=text) if text else None
    if output.output_type == "error":
        return output
    data = {kind: output.data[kind] for kind in KINDS if kind in output.data}
    if "text/html" in data:
        data.pop("text/plain", None)  # of a pandas Styler it is an address in memory
    if any(kind.endswith("widget-view+json") for kind in output.data) or not data:
        return None
    for kind, content in data.items():
        if kind == "text/html":
            content = _numbered(content)
        data[kind] = _small(content, *size) if kind == "image/png" else _shortened(content, places)
    if output.output_type == "execute_result":
        return nbformat.v4.new_output("execute_result", data, execution_count=number)
    return nbformat.v4.new_output("display_data", data)


def _merged(outputs):
    """The outputs that are there; text that was printed in pieces is one."""
    kept = []
    for output in outputs:
        if output is None:
            continue
        if kept and output.output_type == kept[-1].output_type == "stream":
            kept[-1].text += output.text
        else:
            kept.append(output)
    return kept


def _shortened(text, places):
    for place, instead in places.items():
        text = re.sub(r"(?<![\w./-])" + re.escape(place) + r"(?!\.?[\w-])", instead, text)
    return text


def _numbered(html):
    """The random names that a pandas Styler gives to its tables, by order of appearance: the same each time."""
    for number, name in enumerate(dict.fromkeys(re.findall(r"\bT_[0-9a-f]{5}\b|\bT_[0-9a-f]{5}(?=_)", html))):
        html = html.replace(name, f"T_{number:05d}")
    return html


def _small(png, width, colours):
    """A picture (base64) of at most so many pixels' width and so many colours."""
    image = Image.open(io.BytesIO(base64.b64decode(png)))
    if image.mode == "P" and image.width <= width:  # it is one already
        return png
    image = image.convert("RGB")
    if image.width > width:
        image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
    written = io.BytesIO()
    image.quantize(colours, dither=Image.Dither.NONE).save(written, "PNG", optimize=True)
    return base64.b64encode(written.getvalue()).decode()
