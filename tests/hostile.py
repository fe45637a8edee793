"""What the tests of attacks by files and names share."""

XSS = "<img src=x onerror=alert(1)>"


def files_in(folder):
    """Names of all that is no folder, within a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def said_in_one_line(capsys):
    """The one line that a command wrote to stderr."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return lines[0]
