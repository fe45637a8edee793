"""The rules for committed notebooks; as a script: `python tests/notebook_rules.py [NOTEBOOK ...]`, by default all of them."""

import json
import re
import sys
from pathlib import Path

import nbformat

MAX_BYTES = 600_000
# A path on somebody's machine; in a web address or a relative path something stands before the slash.
ABSOLUTE_PATH = re.compile(
    r"(?<![\w.:/-])/(?:home|root|Users|work|tmp|mnt|media|scratch|srv|opt|var)/[^\s\"'`)]*|\b[A-Za-z]:\\\\?\w[^\s\"'`)]*"
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
            errors = [output.ename for output in cell.outputs if output.output_type == "error"]
            if errors:
                found.append(f"{where}: the error {errors[0]} among the outputs")
            elif cell.outputs:
                found.append(f"{where}: outputs")
            if cell.execution_count is not None:
                found.append(f"{where}: an execution count")
    return found


def main(paths):
    paths = [Path(path) for path in paths] or sorted(Path("notebooks").glob("*.ipynb"))
    lines = [f"{path}: {problem}" for path in paths for problem in problems(path)]
    if lines:
        print("\n".join(lines), "`make format` takes outputs and metadata out.", sep="\n")
        return 1
    print(f"{len(paths)} notebooks follow the rules")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
