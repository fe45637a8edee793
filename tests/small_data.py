"""A data set and an encoder so small that a whole run takes a second."""

import numpy as np
from PIL import Image

ENCODER = """
import torch

class TwoScales(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.fine = torch.nn.Conv2d(3, 6, 8, stride=8)
        self.coarse = torch.nn.Conv2d(6, 10, 2, stride=2)

    def forward(self, x):
        fine = self.fine(x).relu()
        return [fine, self.coarse(fine).relu()]

def build():
    return TwoScales()
"""


def write_encoder(folder):
    """Write the encoder's file; return what --encoder takes."""
    (folder / "tiny.py").write_text(ENCODER)
    return f"{folder / 'tiny.py'}:build"


def write_category(root, name="part", *, n_train=6, n_good=3, n_bad=3, masks=True, size=48, seed=0):
    """Draw a category in MVTec AD layout: a striped plate, with a dark spot when it is bad."""
    rng = np.random.default_rng(seed)

    def plate():
        stripes = 128 + 60 * np.sin(np.arange(size) / 3 + rng.uniform(0, 0.3))
        return (stripes[:, None, None] + rng.normal(0, 5, (size, size, 3))).clip(0, 255).astype(np.uint8)

    def save(image, *parts):
        path = root.joinpath(name, *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)

    for i in range(n_train):
        save(plate(), "train", "good", f"{i:03}.png")
    for i in range(n_good):
        save(plate(), "test", "good", f"{i:03}.png")
    for i in range(n_bad):
        image, mask = plate(), np.zeros((size, size), np.uint8)
        y, x = rng.integers(4, size - 16, 2)
        image[y : y + 12, x : x + 12] = 0
        mask[y : y + 12, x : x + 12] = 255
        save(image, "test", "spot", f"{i:03}.png")
        if masks:
            save(mask, "ground_truth", "spot", f"{i:03}_mask.png")
    return root / name
