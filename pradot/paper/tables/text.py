"""A table as text: CSV, Markdown and LaTeX."""

import numpy as np
import pandas as pd

from pradot.files import replacing

DASH = "–"


def formatted(table):
    """Table of text: one decimal, ± standard deviation, signs on differences, dashes for what is missing."""
    text = {}
    for column in table.columns:
        title, what = column if isinstance(column, tuple) else (column, "")
        sign = "+" if what == "difference" else ""
        values = [_text(value, sign) for value in table[column]]
        if what == "std":
            pairs = zip(text[title, "this run"], values, strict=True)
            text[title, "this run"] = [mean if std == DASH else f"{mean} ± {std}" for mean, std in pairs]
        else:
            text[column] = values
    text = pd.DataFrame(text, index=table.index)
    if isinstance(table.columns, pd.MultiIndex):
        only = "paper" not in table.columns.get_level_values(1)
        text.columns = [metric if only or what == "this run" else what for metric, what in text.columns]
    return text


def _text(value, sign=""):
    return value if isinstance(value, str) else DASH if np.isnan(value) else f"{value:{sign}.1f}"


def write_table(path, table, caption, *others):
    """Write a table as ``path`` with .csv, .md and .tex after it, the caption above it.

    Parameters
    ----------
    path : Path
    table : DataFrame
        Numbers, and texts as they are; nothing is written of an empty one.
    caption : str
    *others : (DataFrame, str)
        Tables with captions that stand under it in .md and .tex.
    """
    if not table.size:
        return
    tables = [(table, caption), *(pair for pair in others if pair[0].size)]
    flat = table.copy()
    flat.columns = [", ".join(column) if isinstance(column, tuple) else column for column in flat.columns]
    contents = {
        ".csv": flat.round(3).to_csv(na_rep=DASH, lineterminator="\n"),
        ".md": "\n".join(_markdown(table, caption) for table, caption in tables),
        ".tex": "% needs the packages booktabs and graphicx\n" + "\n".join(_latex_table(*pair) for pair in tables),
    }
    for ending, content in contents.items():
        with replacing(path.with_name(path.name + ending)) as temporary:
            temporary.write_text(content)


def _markdown(table, caption):
    align = ["left"] * table.index.nlevels + ["left" if column == "source" else "right" for column in table.columns]
    text = formatted(table).reset_index()
    return f"{caption}\n\n{text.to_markdown(index=False, disable_numparse=True, colalign=align)}\n"


def _latex_table(table, caption):
    columns = "l" * table.index.nlevels + "".join("l" if column == "source" else "r" for column in table.columns)
    text = formatted(table).reset_index().to_latex(index=False, escape=True, column_format=columns, caption=_latex(caption))
    # As wide as the text at most.
    text = text.replace(
        "\\begin{tabular}", "\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n\\begin{tabular}"
    )
    return text.replace("\\end{tabular}", "\\end{tabular}}").replace(DASH, "--").replace("±", r"$\pm$")


def _latex(text):
    for sign in "_%&#":
        text = text.replace(sign, f"\\{sign}")
    return text
