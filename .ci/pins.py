"""Write constraints.txt from a report of `pip install --dry-run --report`; see `make pins`."""

import json
import re
import sys
from pathlib import Path


def main(report, constraints):
    """Keep the comments that the file begins with, and put one pin a line under them."""
    constraints = Path(constraints)
    header = [line for line in constraints.read_text().splitlines() if line.startswith("#")]
    pins = {}
    for item in json.loads(Path(report).read_text())["install"]:
        if "dir_info" in item["download_info"]:  # the project itself
            continue
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        pins[name] = item["metadata"]["version"].split("+")[0]  # a local version (+cpu) is a matter of the machine
    partial = constraints.with_suffix(".partial")
    partial.write_text("\n".join([*header, *(f"{name}=={pins[name]}" for name in sorted(pins))]) + "\n")
    partial.replace(constraints)
    print(f"{constraints}: {len(pins)} pins")


if __name__ == "__main__":
    main(*sys.argv[1:])
