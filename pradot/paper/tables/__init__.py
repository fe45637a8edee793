"""Tables from run records: this run, the paper's number, their difference, as CSV, Markdown and LaTeX.

Nothing is computed again here. Numbers in the tables are percent.

`records` has run records as rows, `columns` the metrics of each data set and the paper's numbers (`PUBLISHED_AS`: where the
paper's number of a name is another metric than ours of that name), `benchmark` the tables, `text` how they are written.
"""

from pradot.paper.tables.benchmark import benchmark_table, defect_table, write_tables
from pradot.paper.tables.columns import CATEGORIES, COLUMNS, LOCO_COLUMNS, PUBLISHED_AS, columns_of, published, published_table
from pradot.paper.tables.records import as_rows, benchmarks, collect, conditions
from pradot.paper.tables.text import DASH, formatted, write_table

__all__ = [
    "CATEGORIES",
    "COLUMNS",
    "DASH",
    "LOCO_COLUMNS",
    "PUBLISHED_AS",
    "as_rows",
    "benchmark_table",
    "benchmarks",
    "collect",
    "columns_of",
    "conditions",
    "defect_table",
    "formatted",
    "published",
    "published_table",
    "write_table",
    "write_tables",
]
