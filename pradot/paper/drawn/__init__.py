"""The drawn data set: an inspection camera looks down on a tray of parts, drawn from a seed.

The scene is a height field with colours and materials, shaded as a camera would see it: a key light with cast
shadows, a sky, mirror-like metal, then lens blur, vignette and sensor noise. All lengths are in pixels of a
256 x 256 image.

A tray has 2 x 2 equal compartments, each with its own contents. Parts look the same in any compartment, and the walls
are wide, so that exchanged contents (`swapped`) can be told by their place alone as long as an encoder looks no
further than about 30 pixels around. Scale 2 of the offline encoder does; its scale 3 sees about twice as far, and at
the picture's border feels the zero padding, which gives part of the place away.

Here is the set as files; a picture is drawn in `scene`, from `parts` in the `tray` on a `canvas`, with `defects`, in a `light`.
"""

import os
from pathlib import Path

import numpy as np
from PIL import Image

from pradot.errors import PradotError
from pradot.files import alone, scratch
from pradot.paper.drawn.scene import LOGICAL, STRUCTURAL, draw_scene
from pradot.progress import progress_bar

__all__ = ["CATEGORY", "LOGICAL", "MARKER", "STRUCTURAL", "VERSION", "draw", "draw_scene"]

CATEGORY = "tray"
MARKER = "drawn.txt"  # lies in the category's folder, says with what settings it was drawn
VERSION = 3  # of the drawing: raise it with any change of the pictures, so that older sets are redrawn


def draw(
    root: str | Path,
    seed: int = 0,
    n_train: int = 80,
    n_good: int = 20,
    n_per_defect: int = 8,
    size: int = 256,
) -> Path:
    """Draw the set under `root`/tray in the layout of MVTec AD, or keep the same set if it is there.

    The folder appears in one step, finished. A drawn set with other settings, of another version of the drawing, or
    with files missing is replaced.

    Parameters
    ----------
    root : str or Path
        Folder of the data set; made if missing.
    seed : int, default=0
        Same seed, same bytes.
    n_train, n_good : int
        Normal images to train on and to test on.
    n_per_defect : int
        Test images, and masks, for each of `STRUCTURAL` and `LOGICAL`.
    size : int, default=256
        Height and width of the images, pixels.

    Returns
    -------
    Path
        `root`.

    Raises
    ------
    PradotError
        If `root`/tray is not a drawn set: it is never overwritten.
    """
    root = Path(root)
    folder = root / CATEGORY
    counts = {("train", "good"): n_train, ("test", "good"): n_good}
    counts |= {("test", defect): n_per_defect for defect in (*STRUCTURAL, *LOGICAL)}
    n_files = sum(counts.values()) + n_per_defect * len((*STRUCTURAL, *LOGICAL))
    settings = (
        f"drawn by pradot.paper.drawn, version {VERSION}\n"
        f"seed {seed}, n_train {n_train}, n_good {n_good}, n_per_defect {n_per_defect}, size {size}\n"
    )
    if _is_there(folder, settings, n_files):
        return root

    with alone(folder, waiting=f"{folder} is being drawn by another process: waiting for it"):
        if _is_there(folder, settings, n_files):
            return root
        rngs = np.random.default_rng(seed).spawn(len(counts))
        jobs = [
            (split, defect, number, rng)
            for ((split, defect), count), group in zip(counts.items(), rngs, strict=True)
            for number, rng in enumerate(group.spawn(count))
        ]
        with scratch(folder) as temporary, progress_bar(len(jobs), f"drawing {folder}", "image") as bar:
            new = temporary / "new"
            for split, defect, number, rng in jobs:
                image, mask = draw_scene(rng, defect, size)
                _write(image, new / split / defect / f"{number:03d}.png")
                if defect != "good":
                    _write(mask.astype(np.uint8) * 255, new / "ground_truth" / defect / f"{number:03d}_mask.png")
                bar.update()
            (new / MARKER).write_text(settings)
            if folder.exists():
                os.replace(folder, temporary / "old")
            os.replace(new, folder)
    return root


def _is_there(folder: Path, settings: str, n_files: int) -> bool:
    marker = folder / MARKER
    if marker.is_file():
        return marker.read_text() == settings and sum(1 for _ in folder.glob("*/*/*.png")) == n_files
    if folder.exists() and any(folder.iterdir()):
        raise PradotError(
            f"looked for a drawn set at {folder}, found a folder without {MARKER}, which pradot has not drawn; "
            "name another root, or move that folder away"
        )
    return False


def _write(pixels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
