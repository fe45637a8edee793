"""What describes the project to pip, conda, GitHub and readers says the same everywhere."""

import ast
import functools
import importlib.metadata
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

import pradot

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
PYTHONS = ("3.11", "3.12", "3.13")


def read_pins():
    """Package to version, from constraints.txt."""
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)  # fails on a line of any other form
    assert len(pins) == len(lines) > 0
    return {canonicalize_name(name): version for name, version in pins.items()}


@functools.cache
def required(python):
    """Every requirement of the project, and of what it requires as far as that is installed, on one version of Python."""
    environment = default_environment() | {"python_version": python, "python_full_version": f"{python}.9"}
    environment |= {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"}
    found, seen = [], set()
    extras = PROJECT["optional-dependencies"]
    waiting = [("pradot", "", line) for line in PROJECT["dependencies"] + extras["dev"] + extras["book"]]
    while waiting:
        parent, extra, line = waiting.pop()
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate(environment | {"extra": extra}):
            continue
        found.append((parent, requirement))
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                try:
                    lines = importlib.metadata.requires(name) or []
                except importlib.metadata.PackageNotFoundError:  # not needed on the Python that is running
                    lines = []
                waiting += [(name, extra, line) for line in lines]
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_required_is_pinned_within_its_bounds(python):
    pins = read_pins()
    missing = {
        f"{requirement} of {parent}"
        for parent, requirement in required(python)
        if canonicalize_name(requirement.name) not in pins
    }
    assert not missing
    outside = {
        f"{requirement} of {parent}"
        for parent, requirement in required(python)
        if not requirement.specifier.contains(pins[canonicalize_name(requirement.name)], prereleases=True)
    }
    assert not outside


@pytest.mark.parametrize("python", PYTHONS)
def test_what_is_installed_runs_on_every_supported_python(python):
    assert SpecifierSet(PROJECT["requires-python"]).contains(f"{python}.9")
    refusing = set()
    for name in read_pins():
        try:
            requires = importlib.metadata.metadata(name).get("Requires-Python")
        except importlib.metadata.PackageNotFoundError:  # needed on another Python or platform
            continue
        if requires and not SpecifierSet(requires).contains(f"{python}.9"):
            refusing.add(name)
    assert not refusing


def test_conda_reads_the_same_pins():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert environment["name"] == "pradot"
    *conda, pip = environment["dependencies"]
    assert conda == ["python=3.11", "pip"]
    assert pip == {"pip": ["-c constraints.txt", "-e .[dev]"]}


def test_citation_has_the_packages_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == pradot.__version__
    assert citation["license"] == PROJECT["license"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text()
    paper = citation["preferred-citation"]
    assert citation["cff-version"] == "1.2.0" and citation["message"] and citation["authors"]
    assert [author["family-names"] for author in paper["authors"]] == ["Trombetta", "Lartizien"]
    assert paper["title"] in " ".join((ROOT / "README.md").read_text().split())
    assert paper["year"] == 2025
    assert paper["url"].endswith("/2508.12927") and paper["doi"] == "10.48550/arXiv.2508.12927"  # arXiv's rule for its DOIs


def test_changelog_has_the_packages_version():
    assert f"## {pradot.__version__}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_pythons_are_the_same_everywhere():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    assert tuple(workflow["jobs"]["checks"]["strategy"]["matrix"]["python"]) == PYTHONS
    assert f"{' | '.join(PYTHONS)})" in (ROOT / "Makefile").read_text()


def test_every_folder_of_the_package_is_packed():
    folders = {path.parent.relative_to(ROOT) for path in (ROOT / "pradot").rglob("*.py")}
    assert sorted(PYPROJECT["tool"]["setuptools"]["packages"]) == sorted(".".join(folder.parts) for folder in folders)


def test_the_method_imports_nothing_of_the_companion():
    lower = [path for path in sorted((ROOT / "pradot").glob("*.py")) if path.name != "cli.py"]  # a face over both
    assert len(lower) > 15
    upward = []
    for path in lower:
        for node in ast.walk(ast.parse(path.read_text())):  # those within functions too
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                module = ".".join(filter(None, ["pradot" if node.level else "", node.module]))
                names = [f"{module}.{alias.name}" for alias in node.names]
            else:
                continue
            upward += [f"{path.name}: {name}" for name in names if f"{name}.".startswith("pradot.paper.")]
    assert upward == []


def committed_files():
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("no git clone")
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    return [ROOT / name for name in names if name and (ROOT / name).is_file()]


def test_no_package_registry_is_named():
    # Where packages come from is for the user's own settings of pip and conda. (In pieces, so that this file names none.)
    pieces = (
        ("py", "pi.org"),
        ("python", "hosted.org"),
        ("download.py", "torch.org"),
        ("ana", "conda.org"),
        ("ana", "conda.com"),
    )
    registry = re.compile("|".join(re.escape("".join(piece)) for piece in pieces))
    naming = []
    for path in committed_files():
        try:
            naming += [f"{path.relative_to(ROOT)}: {match.group()}" for match in registry.finditer(path.read_text())]
        except UnicodeDecodeError:  # a picture
            continue
    assert naming == []


def test_no_committed_file_is_large():
    assert [path.name for path in committed_files() if path.stat().st_size > 2_000_000] == []
