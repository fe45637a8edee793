"""Figures of the companion: one style, fixed names, same input same bytes.

Notebooks take everything from here; it is made in `style` (how figures look and are saved), `pictures` (images, masks, maps),
`charts` (numbers), `diagram` (the method), `places`, `patches`, `embeddings` and `plans` (what was learned).
"""

from pradot.paper.figures.charts import (
    ablation_plot,
    alpha_curves,
    cost_panels,
    difference_heat_map,
    dots,
    roc_curves,
    training_curves,
)
from pradot.paper.figures.diagram import STAGES, method_diagram
from pradot.paper.figures.embeddings import mixed_distances, neighbour_map, oddest_cell, pca_colours
from pradot.paper.figures.patches import (
    nearest_patches,
    patch_fractions,
    patch_mosaic,
    prototype_patches,
    redrawn_image,
    share_at_home,
    square_pictures,
)
from pradot.paper.figures.pictures import (
    cells_on_image,
    frame_cell,
    gallery,
    image_row,
    maps_over_alpha,
    outlined,
    panels,
    show_image,
    show_map,
)
from pradot.paper.figures.places import (
    assignment_arrows,
    nearest_places,
    position_colours,
    position_drift,
    position_key,
    to_pixels,
)
from pradot.paper.figures.plans import grid_sum, toy_plans
from pradot.paper.figures.style import DIVERGING, HEAT, MAX_BYTES, PALETTE, WIDEST, save_figure, set_style

__all__ = [
    "DIVERGING",
    "HEAT",
    "MAX_BYTES",
    "PALETTE",
    "STAGES",
    "WIDEST",
    "ablation_plot",
    "alpha_curves",
    "assignment_arrows",
    "cells_on_image",
    "cost_panels",
    "difference_heat_map",
    "dots",
    "frame_cell",
    "gallery",
    "grid_sum",
    "image_row",
    "maps_over_alpha",
    "method_diagram",
    "mixed_distances",
    "nearest_patches",
    "nearest_places",
    "neighbour_map",
    "oddest_cell",
    "outlined",
    "panels",
    "patch_fractions",
    "patch_mosaic",
    "pca_colours",
    "position_colours",
    "position_drift",
    "position_key",
    "prototype_patches",
    "redrawn_image",
    "roc_curves",
    "save_figure",
    "set_style",
    "share_at_home",
    "show_image",
    "show_map",
    "square_pictures",
    "to_pixels",
    "toy_plans",
    "training_curves",
]
