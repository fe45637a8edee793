"""What a run was made by: code, packages, processor, threads, files; and what differs between two such makings."""

import ast
import contextlib
import functools
import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path

import torch

import pradot
from pradot.errors import PradotError
from pradot.files import plain_file
from pradot.images import unreadable
from pradot.progress import progress_bar

PACKAGES = ("torch", "torchvision", "timm", "POT", "numpy", "scipy", "scikit-learn", "pillow")
PACKAGE = Path(pradot.__file__).parent
# What `runs` is made of but no number depends on: presets are recorded setting by setting.
_NO_NUMBERS = (
    "errors.py",
    "files.py",
    "memory.py",
    "network.py",
    "progress.py",
    "stopwatch.py",
    "paper/presets.py",
    "paper/provenance.py",
    "paper/records.py",
)


def conditions(device):
    """What this process makes numbers by, as records have it.

    Parameters
    ----------
    device : str
        Where it computes, such as ``"cpu"``.

    Returns
    -------
    dict of str to value
        ``versions`` (`versions`), ``code_sha256`` (`code_sha256`), ``device`` (`device_name`) and ``machine``: the processor
        and the instructions of it that torch uses, torch's threads, whether torch keeps to deterministic algorithms, and
        whether cuDNN tries which one is fastest.
    """
    return {
        "versions": versions(),
        "code_sha256": code_sha256(),
        "device": device_name(device),
        "machine": {
            "processor": f"{_processor()} ({torch.backends.cpu.get_cpu_capability()})",
            "threads": torch.get_num_threads(),
            "deterministic": torch.are_deterministic_algorithms_enabled(),
            "cudnn_benchmark": torch.backends.cudnn.benchmark,
        },
    }


def versions():
    """Versions of what changes numbers, and the commit when the package lies in a clone (``-dirty``: changed since)."""
    found = {"pradot": pradot.__version__, "python": platform.python_version()}
    found |= {package: importlib.metadata.version(package) for package in PACKAGES}
    if (PACKAGE.parent / ".git").exists():  # a package that is installed in somebody's project is not of that project's commit
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            commit = _git("rev-parse", "--short", "HEAD")
            found["commit"] = commit + ("-dirty" if _git("status", "--porcelain", ".") else "")
    return found


def device_name(device):
    """The computing device in words, such as ``cpu (x86_64, 2 threads)``."""
    if str(device).startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} ({platform.machine()}, {torch.get_num_threads()} threads)"


@functools.cache
def code_sha256():
    """SHA-256 of the code that a run's numbers depend on: of what `pradot.paper.runs` imports of pradot, directly or not.

    Of statements, not of text: comments, docstrings and layout do not count.
    """
    trees = _imported(PACKAGE / "paper" / "runs.py")
    outlines = {str(path.relative_to(PACKAGE)): outline(tree) for path, tree in trees.items()}
    counted = {name: text for name, text in sorted(outlines.items()) if Path(name).as_posix() not in _NO_NUMBERS}
    return hashlib.sha256(repr(counted).encode()).hexdigest()


def outline(node):
    """What a syntax tree says, as text that no Python version, comment, docstring or line break changes."""
    if isinstance(node, list):
        statements = [one for one in node if not (isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant))]
        return f"[{', '.join(map(outline, statements))}]"
    if isinstance(node, ast.AST):
        # Fields that only younger versions of Python have are empty in code for all of them.
        fields = [f"{name}={outline(value)}" for name, value in ast.iter_fields(node) if value not in (None, [])]
        return f"{type(node).__name__}({', '.join(fields)})"
    return repr(node)


def made_by(record):
    """Version and commit of the program that made a record, in words."""
    commit = record["versions"].get("commit")
    return f"pradot {record['versions'].get('pradot')}" + (f", commit {commit}" if commit else "")


def other_code(record):
    """Say in what way a record is not known to be of today's code; None if it is of today's."""
    recorded = record.get("code_sha256")
    if recorded == code_sha256():
        return None
    return f"{'other code' if recorded else 'code that it does not tell'} ({made_by(record)})"


def threads_of(record):
    """Torch's threads that a record was made with, or None if it does not tell."""
    recorded = (record.get("machine") or {}).get("threads")
    said = re.search(r"(\d+) threads\)", str(record.get("device")))  # older records
    found = recorded if recorded is not None else int(said[1]) if said else None
    return found if isinstance(found, int) and 1 <= found <= 1024 else None


def differences(then, now):
    """What two makings differ in.

    Parameters
    ----------
    then : dict
        A record.
    now : dict
        See `conditions`.

    Returns
    -------
    found : list of str
        A line each.
    unknown : list of str
        What the record does not tell.
    """
    old, new = then["versions"], now["versions"]
    pairs = {name: (old.get(name), new.get(name)) for name in ("python", *PACKAGES)}
    devices = (one.get("device") for one in (then, now))
    pairs["device"] = tuple(device and re.sub(r", \d+ threads\)", ")", str(device)) for device in devices)
    pairs["threads"] = (threads_of(then), now["machine"]["threads"])
    machine = then.get("machine") or {}
    pairs |= {name.replace("_", " "): (machine.get(name), value) for name, value in now["machine"].items() if name != "threads"}
    found = [f"{name}: {a} then, {b} now" for name, (a, b) in pairs.items() if a is not None and a != b]
    unknown = [name for name, (a, _) in pairs.items() if a is None]
    if then.get("code_sha256") != now["code_sha256"]:
        line = f"pradot's code: {made_by(then)} then, {made_by(now)} now"
        (found if then.get("code_sha256") else unknown).append(line)
    return found, unknown


def _imported(start):
    """Syntax trees of a module and all of pradot that it imports, by their files."""
    found, waiting = {}, [start]
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        found[path] = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(found[path]):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module, *(f"{node.module}.{name}" for name in names)]
            for name in names:
                place = PACKAGE.parent.joinpath(*name.split("."))
                files = (place.with_suffix(".py"), place / "__init__.py")
                waiting += [file for file in files if name.split(".")[0] == "pradot" and file.is_file()]
    return found


def _git(*arguments):
    return subprocess.run(["git", "-C", str(PACKAGE), *arguments], capture_output=True, text=True, check=True).stdout.strip()


def _processor():
    with contextlib.suppress(OSError):  # Linux
        named = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        if named:
            return named[1].strip()
    return platform.processor() or platform.machine()


FILE_DIGITS = 16
"""Hexadecimal digits of each data file's SHA-256 in a record, to say which have changed; `data_sha256` vouches for all."""


def file_hashes(data, progress=False):
    """Path from the category's folder, and SHA-256, of every file of a `pradot.paper.datasets.Category`."""
    stats = tuple((path, *_size_and_time(path)) for path in data.files)
    return _hash_files(data.root, stats, progress)


@functools.lru_cache(maxsize=64)  # the runs of a benchmark in one process read each file once
def _hash_files(root, stats, progress):
    hashes = []
    with progress_bar(len(stats), f"reading {root.name}", "file", progress) as bar:
        for path, *of_content in stats:  # a list may name images that lie elsewhere
            hashes.append((os.path.relpath(path, root), _hash_known(path, *of_content)))
            bar.update()
    return hashes


@functools.lru_cache(maxsize=100_000)  # runs on other parts of the same images too
def _hash_known(path, size, time):  # a file of another size or time is another one
    return hash_file(path)


def _size_and_time(path):
    try:
        found = plain_file(path)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return found.st_size, found.st_mtime_ns


def hash_file(path):
    """SHA-256 of a file, in hexadecimal digits."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PradotError(f"cannot read {path}: {error}") from error
