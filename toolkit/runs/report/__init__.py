"""What a run looks like: pictures drawn while the model is at hand, and one page made from the run's files alone.

The functions `draw_...` need pixels or the model and are called once, at the end of a run. `write_report` needs only
the files of a run directory, so a report can be made again at any time, of an unfinished run as well. Importing this
package loads neither torch nor matplotlib.
"""

from toolkit.runs.report.maps import draw_maps, overlaid, side_by_side
from toolkit.runs.report.page import write_report
from toolkit.runs.report.pictures import draw_augmented, draw_feature_maps, draw_items, draw_worst_errors

__all__ = [
    "draw_augmented",
    "draw_feature_maps",
    "draw_items",
    "draw_maps",
    "draw_worst_errors",
    "overlaid",
    "side_by_side",
    "write_report",
]
