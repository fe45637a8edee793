"""What an ablation is: a question, and settings that answer it."""

from dataclasses import dataclass

from pradot.paper.presets import Preset, Rival


@dataclass(frozen=True)
class Row:
    """One setting of an ablation."""

    label: str  # what is different, for tables, such as "0.3"
    preset: Preset | Rival
    encoder: str | None = None  # as for `pradot.Encoder`; None: the one that all rows share
    value: float | None = None  # the same as a number, for the axis of a plot; None: not on the axis
    group: str = ""  # the line of the plot that it belongs to, where there are several


@dataclass(frozen=True)
class Ablation:
    """One question, and the settings that answer it."""

    name: str  # as on the command line
    question: str
    changes: str  # what the rows differ in, title of the column of labels
    base: Preset  # what the rows have in common
    rows: tuple[Row, ...]
    logarithmic: bool = False  # whether the axis of values is


def per_position(n):
    """A number of prototypes per position as text: ``1/4`` or ``16``."""
    return f"1/{round(1 / n)}" if n < 1 else str(n)
