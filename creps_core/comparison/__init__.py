"""Images beside images: sheets, plots, and measures of likeness and detail.

Read `compare.py` first; `sheet.py` and `plot.py` are the drawing used by all folders above.
"""

from .aliasing import Aliasing
from .compare import MAX_REGIONS, compare
from .consistency import Agreement, consistency_report, scale_consistency, sizes_up_to
from .contact import cell_boxes, contact_sheet
from .plot import Axis, Curve, line_plot
from .sheet import Color, canvas, font, grid, labelled, opaque

__all__ = [
    "MAX_REGIONS",
    "Agreement",
    "Aliasing",
    "Axis",
    "Color",
    "Curve",
    "canvas",
    "cell_boxes",
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
