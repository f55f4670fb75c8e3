"""Pictures beside pictures: sheets, plots, and how alike or how detailed they are.

Read `compare.py` first; `sheet.py` and `plot.py` draw for everybody above.
"""

from .aliasing import Aliasing
from .compare import MOST_PLACES, compare
from .consistency import Agreement, consistency_report, scale_consistency, sizes_up_to
from .contact import cells, contact_sheet
from .plot import Axis, Curve, line_plot
from .sheet import Color, canvas, font, grid, labelled, opaque

__all__ = [
    "MOST_PLACES",
    "Agreement",
    "Aliasing",
    "Axis",
    "Color",
    "Curve",
    "canvas",
    "cells",
    "compare",
    "consistency_report",
    "contact_sheet",
    "font",
    "grid",
    "labelled",
    "line_plot",
    "opaque",
    "scale_consistency",
    "sizes_up_to",
]
