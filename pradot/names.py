"""Names that others chose (of files, folders, in records), made fit to be shown: they may hold anything."""

import re

from pradot.errors import printable

FORMULAS = ("=", "+", "-", "@", "\t", "\r")
"""What begins a formula of a spreadsheet."""
_SIGNS = re.compile(r"[<>&|`$\\^~{}\[\]\"]")  # of HTML, Markdown, LaTeX


def shown(text: object) -> str:
    r"""Text of several lines for a terminal: line ends stay, other control characters become escapes such as ``\x1b``.

    Examples
    --------
    >>> shown("part\x1b[2J.png")
    'part\\x1b[2J.png'
    """
    return "\n".join(map(printable, str(text).split("\n")))


def inert(text: object) -> str:
    """Text that means nothing but itself to Markdown, HTML, LaTeX (but for ``_ % # ' *``) and spreadsheets.

    Signs that do, and those that cannot be printed, become the ``%`` escapes of addresses.

    Examples
    --------
    >>> inert("bottle, 3 of 4"), inert("<b>"), inert("=1+1")
    ('bottle, 3 of 4', '%3Cb%3E', '%3D1+1')
    """
    text = str(text)
    is_plain = lambda i, c: c.isprintable() and not _SIGNS.match(c) and not (i == 0 and c in FORMULAS)  # noqa: E731
    return "".join(c if is_plain(i, c) else _escaped(c) for i, c in enumerate(text))


def _escaped(sign):
    return "".join(f"%{byte:02X}" for byte in sign.encode("utf-8", "surrogatepass"))


def file_cell(name: str) -> str:
    """The name of a file as a cell of a CSV file: no spreadsheet takes it for a formula, and it still opens the file.

    Examples
    --------
    >>> file_cell("000.png"), file_cell("=cmd.png")
    ('000.png', './=cmd.png')
    """
    return f"./{name}" if name.startswith(FORMULAS) else name
