"""The rules for committed notebooks; as a script: `python tests/notebook_rules.py [NOTEBOOK ...]`, by default all of them."""

import json
import re
import sys
from pathlib import Path

import nbformat

from pradot.paper.committed import KINDS, stamp

MAX_BYTES = 600_000
# A path on somebody's machine; in a web address or a relative path something stands before the slash.
ABSOLUTE_PATH = re.compile(
    r"(?:(?<![\w./-])|\bfile://|\x1b\[[0-9;]*m)/(?:home|root|Users|work|workspace|tmp|private|mnt|media|Volumes|scratch|data|content|srv"
    r"|opt|usr|etc|var)/[^\s\"'`)]*|\b[A-Za-z]:(?:\\\\?|/)\w[^\s\"'`)]*"
)


def problems(path):
    """What keeps a notebook from being committed: a list of sentences, empty when nothing does."""
    path = Path(path)
    found = []
    size = path.stat().st_size
    if size > MAX_BYTES:
        found.append(f"{size} bytes; at most {MAX_BYTES} are allowed")
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text)
        if (raw["nbformat"], raw["nbformat_minor"]) < (4, 5):
            return [*found, f"format {raw['nbformat']}.{raw['nbformat_minor']} has no cell ids; save it as 4.5"]
        ids = [cell.get("id") for cell in raw["cells"]]
        if None in ids or len(set(ids)) < len(ids):  # asked here, because nbformat mends ids in silence
            return [*found, "cells without an id, or two with the same"]
        nbformat.validate(raw)
        notebook = nbformat.reads(text, as_version=4)
    except (ValueError, KeyError, TypeError, AttributeError, nbformat.ValidationError) as error:
        return [*found, f"no valid notebook: {str(error).splitlines()[0]}"]

    kernel = notebook.metadata.get("kernelspec", {}).get("name")
    if kernel != "python3":
        found.append(f"kernel {kernel!r}; it must be 'python3'")
    tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1 or tagged[0].cell_type != "code":
        found.append(f"{len(tagged)} cells tagged 'parameters'; it must be one, with code")
    for name in ("widgets", "papermill"):
        if name in notebook.metadata:
            found.append(f"metadata of {name}")

    for number, cell in enumerate(notebook.cells):
        where = f"cell {number}"
        found += [f"{where}: metadata of {name}" for name in ("widgets", "papermill") if name in cell.metadata]
        found += [f"{where}: absolute path {match}" for match in ABSOLUTE_PATH.findall(cell.source)]
        if cell.cell_type == "code":
            found += [f"{where}: {problem}" for problem in output_problems(cell.outputs)]
            if cell.execution_count is None:
                found.append(f"{where}: was not run")
    made_by, now = notebook.metadata.get("pradot"), stamp(notebook)
    if made_by != now:
        found.append(f"stale outputs: they are of {made_by}, the notebook is {now}")
    return found


def output_problems(outputs):
    """What is wrong with a cell's outputs."""
    found = []
    for output in outputs:
        if output.output_type == "error":
            found.append(f"the error {output.ename} among the outputs")
        elif output.output_type == "stream":
            found += [f"output of {output.name}"] if output.name != "stdout" else []
            found += [f"absolute path {match} in the output" for match in ABSOLUTE_PATH.findall(output.text)]
        else:
            found += [f"output of kind {kind}" for kind in sorted(set(output.data) - set(KINDS))]
            texts = [text for kind, text in output.data.items() if kind.startswith("text/")]
            found += [f"absolute path {match} in the output" for text in texts for match in ABSOLUTE_PATH.findall(text)]
    return found


def main(paths):
    paths = [Path(path) for path in paths] or sorted(Path("notebooks").glob("*.ipynb"))
    lines = [f"{path}: {problem}" for path in paths for problem in problems(path)]
    if lines:
        print("\n".join(lines))
        print("`make notebooks` runs them and keeps their outputs; `make format` takes tools' metadata out.")
        return 1
    print(f"{len(paths)} notebooks follow the rules")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
