"""Images of one's own: an example to begin with, and what scoring a folder leaves behind."""

import csv
import io
import math
import shutil
from pathlib import Path

from matplotlib import image as picture

from pradot.files import NAME_BYTES, alone, replacing, short_name
from pradot.names import file_cell
from pradot.paper.notebooks import open_category, project_root


def example_folders(out=None):
    """Write drawn images as one's own would lie: a folder of normal ones, a folder of new ones of all kinds.

    Parameters
    ----------
    out : str or Path, optional
        Folder to write them in; ``build/your_images`` of the project by default.

    Returns
    -------
    normal, new : Path
        Folders of images. A new image's name begins with its kind, such as ``good_003.png``.
    """
    out = Path(out) if out is not None else project_root() / "build" / "your_images"
    data = open_category("drawn")
    files = {path: out / "normal" / path.name for path in data.train}
    files |= {sample.path: out / "new" / f"{sample.defect}_{sample.path.name}" for sample in data.test}
    for path, target in files.items():
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)
    return out / "normal", out / "new"


def write_predictions(out, paths, maps, threshold=None, *, scores=None):
    """Write heat maps, all with one colour range, and ``scores.csv``.

    Parameters
    ----------
    out : str or Path
        Folder; ``heat_maps`` in it is made.
    paths : sequence of Path
        The images; the files of their heat maps bear their names (those too long for it, their beginnings and a hash).
    maps : sequence of ndarray of shape (height_i, width_i)
        Anomaly maps. Each is read twice and none is kept: they may be made as they are read, see
        `pradot.paper.evaluation.Maps`.
    threshold : float, optional
        Then the table has a column ``is_anomalous``: 1 where the score is above it, else 0.
    scores : sequence of float, optional
        The images' scores; the maxima of their maps by default.

    Returns
    -------
    low, high : float
        Ends of the colour range.
    """
    out = Path(out)
    highest, low = [], math.inf
    for anomaly_map in maps:
        highest.append(float(anomaly_map.max()))
        low = min(low, float(anomaly_map.min()))
    scores, high = highest if scores is None else scores, max(highest)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["file", "anomaly_score"] + ["is_anomalous"] * (threshold is not None))
    for path, score in zip(paths, scores, strict=True):
        writer.writerow([file_cell(path.name), f"{score:.6f}"] + ([] if threshold is None else [int(score > threshold)]))
    with alone(out / "scores.csv"):  # two calls at once: the pictures and the scores are those of one of them
        for path, anomaly_map in zip(paths, maps, strict=True):
            with replacing(out / "heat_maps" / f"{short_name(path.name, NAME_BYTES - 4)}.png") as temporary:
                picture.imsave(temporary, anomaly_map, vmin=low, vmax=high, cmap="inferno", format="png")
        with replacing(out / "scores.csv") as temporary:
            temporary.write_text(
                table.getvalue(), encoding="utf-8", errors="backslashreplace"
            )  # not every name of a file is text
    return low, high
