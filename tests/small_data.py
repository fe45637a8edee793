"""A data set and an encoder so small that a whole run takes a second."""

import json

import numpy as np
import safetensors.torch
import timm
import torch
from PIL import Image

QUICK_FIT = {"n_prototypes": 1, "n_epochs": 8, "batch_size": 4, "n_iter": 20}  # settings of a `Pradot`
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


def save_random(folder, architecture, suffix=".safetensors", seed=0):
    """A weights file of a randomly started timm model; returns its path and the model."""
    torch.manual_seed(seed)
    model = timm.create_model(architecture).eval()
    path = folder / f"{architecture}{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path)
    return path, model


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


LOCO_CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 40, "relative_saturation": False},
    {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 0.5, "relative_saturation": True},
]


def write_loco_category(root, name="juice_bottle", *, n_train=4, n_validation=2, n_good=2, n_bad=2, size=(40, 56)):
    """Draw a category in the layout of MVTec AD LOCO: every logical anomaly has two masks, of grey values 255 and 254."""
    rng = np.random.default_rng(0)

    def save(pixels, *parts):
        path = root.joinpath(name, *parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)

    def square(y, x, side, value):
        mask = np.zeros(size, np.uint8)
        mask[y : y + side, x : x + side] = value
        return mask

    parts = {"train/good": n_train, "validation/good": n_validation, "test/good": n_good}
    parts |= {f"test/{kind}_anomalies": n_bad for kind in ("logical", "structural")}
    for folder, n in parts.items():
        for i in range(n):
            image = (128 + rng.normal(0, 5, (*size, 3))).astype(np.uint8)
            masks = {
                "test/logical_anomalies": [square(2, 3, 10, 255), square(20, 30, 6, 254)],
                "test/structural_anomalies": [square(5, 5 + i, 4, 254)],
            }.get(folder, [])
            for number, mask in enumerate(masks):
                image[mask > 0] = 0
                save(mask, "ground_truth", folder.split("/")[1], f"{i:03}", f"{number:03}.png")
            save(image, *folder.split("/"), f"{i:03}.png")
    (root / name / "defects_config.json").write_text(json.dumps(LOCO_CONFIG))
    return root / name


def write_visa(root, names=("candle", "pcb1"), *, n_train=3, n_good=2, n_bad=2, size=24):
    """Draw VisA as its archive has it; masks hold 0 and a label."""
    rows = ["object,split,label,image,mask"]
    for name in names:
        data = root / name / "Data"
        for folder in ("Images/Normal", "Images/Anomaly", "Masks/Anomaly"):
            (data / folder).mkdir(parents=True)
        for i in range(n_train + n_good):
            Image.new("RGB", (size, size), (100 + i, 90, 80)).save(data / f"Images/Normal/{i:04}.JPG")
            rows.append(f"{name},{'test' if i < n_good else 'train'},normal,{name}/Data/Images/Normal/{i:04}.JPG,")
        for i in range(n_bad):
            Image.new("RGB", (size, size), (0, i, 0)).save(data / f"Images/Anomaly/{i:03}.JPG")
            mask = np.zeros((size, size), np.uint8)
            mask[2:5, 3:9] = i + 1
            Image.fromarray(mask).save(data / f"Masks/Anomaly/{i:03}.png")
            image, truth = f"{name}/Data/Images/Anomaly/{i:03}.JPG", f"{name}/Data/Masks/Anomaly/{i:03}.png"
            rows.append(f"{name},test,anomaly,{image},{truth}")
        (root / name / "image_anno.csv").write_text("image,label,mask\n")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")
    return root
