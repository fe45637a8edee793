"""How long things take: a training step by POT's solver, by the faithful and by the fast path, scoring, and a whole fit.

All ratios come from one run. Sizes and channels are always those of ResNet-50 at 224 px (scale 3: 14 x 14 x 1,024; scale 2:
28 x 28 x 512), 16 prototypes per position, 64 images a step, alpha 0.3, reg 0.01, unless a growth curve varies them.

It is measured in `measurement`; `report` writes and tabulates what was found.
"""

from pradot.paper.speed.measurement import FAST, GRIDS, N_IMAGES, PAPER, measure
from pradot.paper.speed.report import summary_table, write

__all__ = [
    "FAST",
    "GRIDS",
    "N_IMAGES",
    "PAPER",
    "measure",
    "summary_table",
    "write",
]
