"""Ablations as data: one question each, and the settings that answer it.

An ablation changes one thing of a base preset. Its rows are presets again, so that each is run, recorded and found again like
any other (`pradot.paper.runs.run`); its table reads the records.

`ABLATIONS` has them by name, as functions of the name and the base preset, in the order of notebooks 09 and, for the last four,
11. `ENCODERS` are the backbones compared, `RUNGS` the settings in which the preset ``best`` differs from others, in the order
of the ladder. What an ablation is says `rows`; those of one setting are in `questions`, those of whole methods and of training
images in `methods`, running them and their tables in `results`.
"""

from pradot.paper.ablations.methods import CONTAMINATIONS, RUNGS, SHOTS
from pradot.paper.ablations.questions import ABLATIONS, ALPHAS, EMAS, ENCODERS, N_PROTOTYPES, REGS, SCALES, SIZES, get_ablation
from pradot.paper.ablations.results import Result, ablation_table, missing_weights, run_ablation, write_ablation
from pradot.paper.ablations.rows import Ablation, Row

__all__ = [
    "ABLATIONS",
    "ALPHAS",
    "CONTAMINATIONS",
    "EMAS",
    "ENCODERS",
    "N_PROTOTYPES",
    "REGS",
    "RUNGS",
    "SCALES",
    "SHOTS",
    "SIZES",
    "Ablation",
    "Result",
    "Row",
    "ablation_table",
    "get_ablation",
    "missing_weights",
    "run_ablation",
    "write_ablation",
]
