"""Explorers of the notebooks: pictures that answer to a slider, and what stands for them where nobody can move one.

Everything that does not depend on the slider is made once: costs, plans, axes, labels, the arrows' ends. A move mixes, looks
colours up in a table, pastes them between the labels and sends one PNG. Matplotlib draws when an explorer is made and never
after. Heat maps are readable by the colour-blind, places are shown by arrows beside colours, and each control works by keyboard
(Tab, space, and on sliders the arrow keys). `LIMIT` is how long an answer may take, seconds.

What they share is in `explorer` and `canvas`; each explorer has a file of its own, `alpha`, `reg` and `threshold`.
"""

from pradot.paper.widgets.alpha import AlphaExplorer, View
from pradot.paper.widgets.explorer import LIMIT, Explorer, png
from pradot.paper.widgets.reg import RegExplorer
from pradot.paper.widgets.threshold import ThresholdExplorer

__all__ = [
    "LIMIT",
    "AlphaExplorer",
    "Explorer",
    "RegExplorer",
    "ThresholdExplorer",
    "View",
    "png",
]
