"""PRADOT: local and global prototypes with optimal transport for unsupervised anomaly detection and localization.

The method of R. Trombetta and C. Lartizien (2025), arXiv 2508.12927, small enough to read in an afternoon: `encoder`, `cost`,
`transport`, `prototypes`, `detector`, `metrics`. The companion of the paper, built on it, is `pradot.paper`.
"""

import os
import signal
import sys

if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # `python -m pradot` is starting: until it begins its work, Ctrl-C ends it as it ends any program, without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

# Read when torch is loaded: threads that wait do not spin, so that no library keeps the cores from another.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from pradot.branches import PAPER_BRANCHES, Branch
from pradot.cost import CostScale, feature_cost, grid_positions, mix_costs, spatial_cost
from pradot.detector import Pradot
from pradot.encoder import Encoder
from pradot.errors import PradotError
from pradot.prototypes import PrototypeLearner
from pradot.transport import Transport, sinkhorn

__version__ = "0.1.0"

__all__ = [
    "PAPER_BRANCHES",
    "Branch",
    "CostScale",
    "Encoder",
    "Pradot",
    "PradotError",
    "PrototypeLearner",
    "Transport",
    "feature_cost",
    "grid_positions",
    "mix_costs",
    "sinkhorn",
    "spatial_cost",
]
