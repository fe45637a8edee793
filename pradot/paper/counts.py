"""How many images the published data sets have, by category in the published order."""

from typing import NamedTuple

from pradot.paper.layouts import Images


class Counts(NamedTuple):
    """Images of a category."""

    train: int  # normal
    validation: int  # normal, held out by the data set itself
    normal: int  # test images
    anomalous: int  # test images

    def __str__(self):
        validation = f" + {self.validation}" if self.validation else ""
        return f"{self.train}{validation} + {self.normal} + {self.anomalous}"


def count(images: Images) -> Counts:
    """Count the images of a category."""
    n_anomalous = sum(sample.is_anomalous for sample in images.test)
    return Counts(len(images.train), len(images.validation), len(images.test) - n_anomalous, n_anomalous)


# Bergmann et al., CVPR 2019, table 1: textures, then objects.
MVTEC_AD_COUNTS = {
    "carpet": Counts(280, 0, 28, 89),
    "grid": Counts(264, 0, 21, 57),
    "leather": Counts(245, 0, 32, 92),
    "tile": Counts(230, 0, 33, 84),
    "wood": Counts(247, 0, 19, 60),
    "bottle": Counts(209, 0, 20, 63),
    "cable": Counts(224, 0, 58, 92),
    "capsule": Counts(219, 0, 23, 109),
    "hazelnut": Counts(391, 0, 40, 70),
    "metal_nut": Counts(220, 0, 22, 93),
    "pill": Counts(267, 0, 26, 141),
    "screw": Counts(320, 0, 41, 119),
    "toothbrush": Counts(60, 0, 12, 30),
    "transistor": Counts(213, 0, 60, 40),
    "zipper": Counts(240, 0, 32, 119),
}
MVTEC_AD_CATEGORIES = tuple(MVTEC_AD_COUNTS)
"""The fifteen categories in the published order."""

# What the archive holds: in splicing_connectors six training images and one for validation more than in Bergmann et al., IJCV
# 2022, table 1, which sums to 1,772 and 304.
MVTEC_LOCO_COUNTS = {
    "breakfast_box": Counts(351, 62, 102, 83 + 90),
    "juice_bottle": Counts(335, 54, 94, 142 + 94),
    "pushpins": Counts(372, 69, 138, 91 + 81),
    "screw_bag": Counts(360, 60, 122, 137 + 82),
    "splicing_connectors": Counts(360, 60, 119, 108 + 85),
}

# Zou et al., ECCV 2022, divided by split_csv/1cls.csv.
VISA_COUNTS = {
    "candle": Counts(900, 0, 100, 100),
    "capsules": Counts(542, 0, 60, 100),
    "cashew": Counts(450, 0, 50, 100),
    "chewinggum": Counts(453, 0, 50, 100),
    "fryum": Counts(450, 0, 50, 100),
    "macaroni1": Counts(900, 0, 100, 100),
    "macaroni2": Counts(900, 0, 100, 100),
    "pcb1": Counts(904, 0, 100, 100),
    "pcb2": Counts(901, 0, 100, 100),
    "pcb3": Counts(905, 0, 101, 100),
    "pcb4": Counts(904, 0, 101, 100),
    "pipe_fryum": Counts(450, 0, 50, 100),
}
