"""The one exception that PRADOT raises for what its user can mend, how to know that memory ran out, checks of numbers."""

from numbers import Integral, Real


class PradotError(ValueError):
    """Something the user can mend; the message says what was looked for, what was found and what to do next.

    The command line prints the message alone, without a traceback.
    """


def is_out_of_memory(error):
    """Tell whether an exception says that memory ran out: Python's, NumPy's, or torch's of the CPU or a GPU."""
    said = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(part in str(error) for part in said))


def is_number(value):
    """Tell whether a setting is a real number; True and False are none. NaN is one, and lies in no range."""
    return isinstance(value, Real) and not isinstance(value, bool)


def is_whole(value):
    """Tell whether a setting is a whole number, Python's or NumPy's; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def printable(text):
    """Text that any terminal shows as one line: control characters, and what of a file's name is no UTF-8, as escapes."""
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in str(text))


def first_line(error):
    """First line of what an exception says, or its kind if it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)
