"""Float32 products in float32."""

from contextlib import contextmanager

import torch

_SETTINGS = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.mkldnn.matmul, torch.backends.mkldnn.conv)


@contextmanager
def ieee_float32():
    """Keep float32 products and convolutions in float32, whatever the process has set before.

    TF32, torch's default for convolutions on a GPU, keeps 10 bits of each factor, and `torch.set_float32_matmul_precision`
    lets it and bfloat16 into matrix products. Costs are divided by a small reg: 2 ** -11 of a cost of 1 is 5 % of a plan's
    entry at reg 0.01. Where fewer bits do, the code says so itself (`PrototypeLearner`, `precision`).
    """
    before = [setting.fp32_precision for setting in _SETTINGS]
    try:
        for setting in _SETTINGS:
            setting.fp32_precision = "ieee"
        yield
    finally:
        for setting, value in zip(_SETTINGS, before, strict=True):
            setting.fp32_precision = value
