"""What lies in a folder: in natural order, and in words for errors."""

import re
from collections import Counter
from pathlib import Path


def visible(folder: Path) -> list[Path]:
    """List what lies directly in a folder, hidden names left out, in natural order; nothing if there is no folder."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if not path.name.startswith(".")), key=_natural)


def describe_folder(folder: Path) -> str:
    """Say in a few words what is found at a path: how many files of which endings, and the first folders' names.

    For a path that does not exist, what the deepest existing folder above it holds.
    """
    if folder.is_dir():
        entries = visible(folder)
        folders = [path.name for path in entries if path.is_dir()]
        endings = Counter(path.suffix.lower() or "no ending" for path in entries if not path.is_dir())
        parts = []
        if endings:
            parts.append("files (" + ", ".join(f"{count} {ending}" for ending, count in endings.most_common(5)) + ")")
        if folders:
            parts.append("folders (" + ", ".join(folders[:8]) + (", ..." if len(folders) > 8 else "") + ")")
        return "it holds " + (" and ".join(parts) or "nothing")
    if folder.exists():
        return "it is a file, not a folder"
    parent = next(parent for parent in folder.absolute().parents if parent.is_dir())
    return f"it does not exist; the folder {parent} does, and " + describe_folder(parent)


def _natural(path: Path) -> tuple:
    """Key that orders runs of digits by their value; the plain name settles ties such as 1.png and 01.png."""
    parts = re.split(r"([0-9]+)", path.name.casefold())  # text at even places, digits at odd ones
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], path.name
