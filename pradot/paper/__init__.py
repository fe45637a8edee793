"""The companion of the paper, built on the method: data sets, experiments, run records, tables, figures, notebooks."""
