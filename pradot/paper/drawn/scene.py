"""One picture of the tray, with or without a defect."""

import numpy as np

from pradot.errors import PradotError
from pradot.paper.drawn.canvas import SUPERSAMPLING, Canvas
from pradot.paper.drawn.defects import SURFACE, beside
from pradot.paper.drawn.light import photograph, shade
from pradot.paper.drawn.parts import CONTENTS
from pradot.paper.drawn.tray import FLOOR, draw_tray, place_part, random_pose

STRUCTURAL = ("scratch", "dent", "stain")
LOGICAL = ("missing", "swapped", "extra")


def draw_scene(rng: np.random.Generator, defect: str = "good", size: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Draw one picture of the tray, and the mask of its defect.

    The same state of `rng` gives the same scene, light and noise whatever the defect, so that a scene can be compared
    with itself without the defect.

    Parameters
    ----------
    rng : numpy.random.Generator
        Decides everything left to chance.
    defect : str, default="good"
        "good", one of `STRUCTURAL` or one of `LOGICAL`.
    size : int, default=256
        Height and width, pixels.

    Returns
    -------
    image : ndarray of uint8, (size, size, 3)
        RGB.
    mask : ndarray of bool, (size, size)
        Where the defect is: the mark (`STRUCTURAL`), where the part should be (`missing`), the pixels of the additional
        part (`extra`), those of either part in both compartments (`swapped`). Empty for "good".

    Raises
    ------
    PradotError
        If there is no such defect.
    """
    if defect not in ("good", *STRUCTURAL, *LOGICAL):
        raise PradotError(f"no defect {defect!r} in the drawn set; it has {', '.join((*STRUCTURAL, *LOGICAL))} and good")
    scene, fault, camera = rng.spawn(3)  # apart, so that a defect changes nothing else
    canvas, elsewhere = Canvas(size), Canvas(size)  # what is laid elsewhere only gives its outline
    tray = draw_tray(canvas, scene)
    contents = list(CONTENTS)
    poses = [[random_pose(scene) for _ in range(2)] for _ in contents]
    covered = np.zeros((canvas.n, canvas.n), bool)
    cell = int(fault.integers(len(contents)))
    which = int(fault.integers(len(contents[cell])))

    if defect == "swapped":
        other = (cell + int(fault.integers(1, len(contents)))) % len(contents)
        for here, there in ((cell, other), (other, cell)):
            contents[here] = CONTENTS[there]
            for items in (CONTENTS[here], CONTENTS[there]):
                for item, pose in zip(items, poses[here], strict=False):
                    covered |= place_part(elsewhere, tray, here, item, pose)
    for number, items in enumerate(contents):
        for place, (item, pose) in enumerate(zip(items, poses[number], strict=False)):
            if defect == "missing" and (number, place) == (cell, which):
                covered |= place_part(elsewhere, tray, number, item, pose)
            else:
                place_part(canvas, tray, number, item, pose)
    if defect == "extra":
        covered |= place_part(canvas, tray, cell, beside(fault, contents[cell][which]), random_pose(fault), base=FLOOR + 5)
    if defect in SURFACE:
        item = contents[cell][which]
        spot = tray.place(cell, *(np.array([item.x, item.y]) + fault.uniform(-14, 14, 2)))
        covered |= SURFACE[defect](canvas, fault, spot)

    mask = covered.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING).mean((1, 3)) >= 0.5
    return photograph(shade(canvas), camera), mask
