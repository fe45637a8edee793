"""The measurement: a step by each solver, scoring, a fit, growth curves."""

import cProfile
import datetime
import pstats
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import timm
import torch

from pradot.block_cost import BlockCost, by_cell, has_bfloat16
from pradot.cost import CostScale
from pradot.detector import Branch, Pradot
from pradot.encoder import Encoder, make_encoder
from pradot.errors import PradotError
from pradot.memory import peak_memory_gb, reset_peak_memory
from pradot.paper.datasets import list_categories, load_category
from pradot.paper.presets import get_preset
from pradot.paper.provenance import device_name, versions
from pradot.progress import progress_bar
from pradot.prototypes import PrototypeLearner
from pradot.streaming import sinkhorn_streamed
from pradot.transport import sinkhorn

GRIDS = {14: (3, 1024), 28: (2, 512)}  # side of the map: scale, channels
N_IMAGES = 64
PAPER = {"n_prototypes": 16, "reg": 0.01, "n_iter": 100, "batch_size": N_IMAGES, "random_state": 0}
FAST = PAPER | {"solver": "streamed", "tol": 0.01, "precision": "reduced", "start": "spread"}


def measure(root=None, *, encoder=None, weights=None, quick=False, device="cpu", progress=False):
    """Measure everything once.

    Parameters
    ----------
    root : str or Path, optional
        Folder of MVTec AD: features are those of its first category by `encoder`, and that category is fitted. None: features
        are drawn, the drawn data are fitted.
    encoder, weights : str, optional
        With `root`: an encoder with the channels of ResNet-50, see `pradot.encoder.make_encoder`; the paper's by default.
    quick : bool
        POT's 100 iterations are extrapolated from a few; growth curves have fewer points. Minutes.
    device : str
    progress : bool

    Returns
    -------
    dict
        ``conditions``; ``step_14`` and ``step_28`` (seconds, ratios, memory of one training step); ``score`` (one image by four
        branches); ``fit``; ``steps`` (transport loss of held-out images after some steps of the paper's training and of
        the fast preset's); ``growth`` (seconds of a fast step by batch size, number of prototypes, side of the map);
        ``profile`` (share of the time by function in a fast 28 x 28 step).

    Raises
    ------
    PradotError
        The encoder has not the channels of ResNet-50, or the data cannot be read.
    """
    images = None
    if root is not None:
        images = load_category("mvtec_ad", root, list_categories("mvtec_ad", root)[0])
        backbone = make_encoder(encoder or "auto", weights, device=device)
        if [backbone.channels[scale] for scale, _ in GRIDS.values()] != [channels for _, channels in GRIDS.values()]:
            raise PradotError(
                f"{backbone.name} has {backbone.channels} channels; ratios compare only with those of ResNet-50, "
                f"{dict(GRIDS.values())}: name one with --encoder, or leave --root away"
            )
    else:
        # Time does not depend on the weights' values.
        module = timm.create_model("resnet50", pretrained=False, features_only=True, out_indices=(2, 3))
        backbone = Encoder.from_module(module, "resnet50 with random weights", device=device)
    with progress_bar(7, "measuring speed", "part", progress) as bar:
        found = {"conditions": _conditions(backbone, images, quick)}
        features = _features(backbone, images)
        learners = {}
        for side, (scale, _) in GRIDS.items():
            found[f"step_{side}"], learners[scale] = _step(features[scale], side, quick, device)
            bar.update()
        found["profile"] = _profile(learners[2], features[2])
        bar.update()
        found["growth"] = _growth(features, quick, device)
        bar.update()
        found["score"] = _score(backbone, learners, images)
        bar.update()
        with tempfile.TemporaryDirectory() as folder:
            if images is None:
                images = load_category("drawn", folder, list_categories("drawn", folder)[0])
            found["fit"] = _fit(images, device, Path(folder))
            bar.update()
            found["steps"] = _steps(images, quick, device)
            bar.update()
    return found


def _conditions(backbone, images, quick):
    return {
        "device": device_name(backbone.device),
        "bfloat16_instructions": has_bfloat16(backbone.device),
        "encoder": backbone.name,
        "weights_sha256": backbone.weights_sha256,
        "features": "drawn" if images is None else f"mvtec_ad {images.name}",
        "quick": quick,
        "seed": 0,
        "versions": versions(),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _features(backbone, images):
    """Feature maps of 128 images, {scale: (128, side, side, channels)}: 64 to train on before, 64 for the step measured."""
    if images is not None:
        if len(images.train) < 2 * N_IMAGES:
            raise PradotError(f"{images.name} has {len(images.train)} training images; {2 * N_IMAGES} are needed to measure")
        return backbone.features(images.train[: 2 * N_IMAGES])
    generator = torch.Generator().manual_seed(0)
    drawn = {}
    for side, (scale, channels) in GRIDS.items():
        # Rectified like those of a ResNet, a common part for each place and one of the image's own.
        common = torch.randn(side, side, channels, generator=generator)
        own = torch.randn(2 * N_IMAGES, side, side, channels, generator=generator)
        drawn[scale] = own.mul_(0.7).add_(common).relu_()  # (128, side, side, channels)
    return drawn


def _seconds(work, repeats, warm=False):
    """Median time of a piece of work, seconds, after one run to warm up unless it is `warm`."""
    times = []
    for _ in range(repeats + (not warm)):
        start = time.perf_counter()
        work()
        _wait()
        times.append(time.perf_counter() - start)
    return statistics.median(times[-repeats:])


def _wait():
    """Until a GPU has done what it was told."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _time_and_peak(work, repeats, device):
    """Median seconds, and the largest memory of one run before, GB above what was held; no repeats: that run's seconds."""
    reset_peak_memory()
    before = peak_memory_gb(device)
    first = _seconds(work, 1, warm=True)
    peak = max(0.0, peak_memory_gb(device) - before)  # Linux counts pages in bundles: small work can seem to give some back
    return (_seconds(work, repeats, warm=True) if repeats else first), peak


def _started(features, device, n_steps=3, **settings):
    """A learner in the middle of training: some fast steps made on other images than the last 64."""
    learner = PrototypeLearner(0.3, max_steps=n_steps, n_epochs=n_steps, device=device, **FAST | settings)
    return learner.fit(features[: learner.batch_size], features[:1])


def _step(features, side, quick, device):
    batch = features[-N_IMAGES:].to(device)  # (64, side, side, channels)
    fast = _started(features, device)
    faithful = PrototypeLearner(0.3, device=device, **PAPER)
    faithful.grid_shape_, faithful.positions_ = fast.grid_shape_, fast.positions_
    faithful.history_ = {name: [] for name in fast.history_}
    start = fast.prototypes_, fast._dual, fast._largest, fast._n_passes

    def step(learner):
        learner.prototypes_, learner._dual, learner._largest, learner._n_passes = start  # every step is the same one
        learner._step(batch)

    found, repeats = {}, 0 if quick and side == 28 else 2  # there a step takes half a minute, and those before warmed it
    found["fast_s"], found["fast_peak_gb"] = _time_and_peak(lambda: step(fast), repeats, device)
    found["fast_passes"], found["fast_iterations"] = fast._n_passes, fast.history_["n_iter"][-1]
    found["fast_marginal_error"] = fast.history_["marginal_error"][-1]
    found["faithful_s"], found["faithful_peak_gb"] = _time_and_peak(lambda: step(faithful), repeats, device)
    found["faithful_marginal_error"] = faithful.history_["marginal_error"][-1]

    x = torch.nn.functional.normalize(batch.flatten(0, 2), dim=1)  # (64 * side * side, channels)
    z = torch.nn.functional.normalize(start[0], dim=1)  # (m, channels)
    similar = torch.mm(x, z.T)  # (64 * side * side, m)
    found["cost_product_s"] = _seconds(lambda: torch.mm(x, z.T, out=similar), max(1, repeats), warm=True)
    found["barycentre_product_s"] = _seconds(lambda: torch.mm(similar.T, x), max(1, repeats))
    similar = None  # 2.5 GB at 28 x 28

    faithful.prototypes_ = start[0]
    _wait()
    begin = time.perf_counter()
    M, _ = faithful.cost(batch)  # (64 * side * side, m)
    _wait()
    cost_s = time.perf_counter() - begin
    # The first run pays for memory that is new to it, so that what lies between the two comes out too short: at 28 x 28 one
    # iteration by a half and more, three together by a tenth.
    few = {14: (1, 6), 28: (1, 4)}[side] if quick else (1, 100)
    times = {}
    for n_iter in few:
        _wait()
        begin = time.perf_counter()
        pot = sinkhorn(M, 0.01, n_iter=n_iter, solver="pot")
        _wait()
        times[n_iter] = time.perf_counter() - begin
    kernel = sinkhorn(M, 0.01, n_iter=few[1])
    found["l1_between_plans"] = sum(
        (k * u[:, None] * kernel.column_scaling - plan).abs_().sum().item()
        for k, u, plan in zip(*(part.split(256) for part in (kernel.kernel, kernel.row_scaling, pot.kernel)), strict=True)
    )
    found["pot_iterations_timed"] = few[1]
    # Where an iteration takes milliseconds, other work on the machine can make the longer run the quicker one.
    per_iteration = max(0.0, times[few[1]] - times[few[0]]) / (few[1] - few[0])
    # The rest of POT's step is that of the faithful one: cost, barycentres, moving.
    found["pot_s"] = cost_s + times[few[0]] + per_iteration * (100 - few[0]) + found["barycentre_product_s"]
    found["pot_over_faithful"] = found["pot_s"] / found["faithful_s"]
    found["pot_over_fast"] = found["pot_s"] / found["fast_s"]
    found["fast_over_matmul"] = found["fast_s"] / (found["cost_product_s"] + found["barycentre_product_s"])
    return found, fast


def _profile(learner, features):
    """Share of the time of a fast step by function, largest first."""
    batch = features[-N_IMAGES:].to(learner.device)
    profiler = cProfile.Profile()
    profiler.runcall(learner._step, batch)
    spent = {}
    for (_, _, function), (_, _, own, _, _) in pstats.Stats(profiler).stats.items():
        name = function.removeprefix("<built-in method ").removeprefix("<method '").split(" ")[0].strip(">'")
        spent[name] = spent.get(name, 0.0) + own
    total = sum(spent.values())
    return {name: round(own / total, 4) for name, own in sorted(spent.items(), key=lambda item: -item[1])[:10]}


def _growth(features, quick, device):
    """Seconds of a fast step when one size varies and the others stay at 14 x 14, 16 per position, 64 images."""

    def seconds(maps, **settings):
        learner = _started(maps, device, n_steps=1, **settings)
        batch = maps[-learner.batch_size :]
        return _seconds(lambda: learner._step(batch), 1, warm=True)

    maps = features[3][:N_IMAGES].permute(0, 3, 1, 2)  # (64, channels, 14, 14)
    by_side = {}
    for side in (7, 21) if quick else (7, 21, 28, 42):
        resized = torch.nn.functional.interpolate(maps, size=(side, side), mode="bilinear")  # (64, channels, side, side)
        by_side[side] = seconds(resized.permute(0, 2, 3, 1).contiguous())
    curves = {
        "batch_size": {N_IMAGES // part: seconds(features[3], batch_size=N_IMAGES // part) for part in (8, 4, 2)},
        "n_prototypes": {n: seconds(features[3], n_prototypes=n) for n in (1, 4, 16) if n != FAST["n_prototypes"]},
        "side": by_side,
    }
    common = seconds(features[3])
    for curve, size in zip(curves.values(), (N_IMAGES, FAST["n_prototypes"], 14), strict=True):
        curve[size] = common
    return {name: dict(sorted(curve.items())) for name, curve in curves.items()}


def _score(backbone, learners, images):
    """One image by four branches, from the image to its score, against the encoder alone."""
    image = (np.random.default_rng(0).random((512, 512, 3)) * 255).astype(np.uint8)
    if images is not None:
        image = images.test[0].path
    detector = Pradot(backbone, scoring="training")
    detector.learners_ = {}
    for scale, fitted in learners.items():
        for alpha in (0.0, 0.3):
            learner = PrototypeLearner(alpha, precision="reduced", device=fitted.device)
            learner.prototypes_, learner.positions_ = fitted.prototypes_, fitted.positions_
            learner.grid_shape_, learner.scale_ = fitted.grid_shape_, fitted.scale_
            detector.learners_[Branch(scale, alpha)] = learner
    found = {
        "encoder_s": _seconds(lambda: backbone.features([image]), 9),
        "all_s": _seconds(lambda: detector.anomaly_scores([image]), 9),
    }
    return found | {"all_over_encoder": found["all_s"] / found["encoder_s"]}


def _fit(images, device, folder):
    """From image files to a saved model: preset fast, offline encoder."""
    start = time.perf_counter()
    Pradot(Encoder(device=device), **get_preset("fast").detector_settings).fit(images.train).save(folder / "model")
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "dataset": images.dataset, "category": images.name, "n_images": len(images.train)}


def _steps(images, quick, device):
    """Transport loss of held-out images by steps of training: 14 x 14, alpha 0.3, offline encoder, a fifth held out.

    Costs have one scale for all, so that losses compare: feature costs as they are, spatial ones divided by their largest. The
    paper's training is that of its preset but for the solver, which is streamed, to a marginal error of 0.01.
    """
    maps = Encoder(device=device).features(images.train)[3]
    train, held_out = maps[len(maps) // 5 :], maps[: len(maps) // 5]
    losses = {}
    paper, fast = ((1, 50), (0, 1, 4, 8)) if quick else ((1, 10, 50, 100), (0, 1, 2, 4, 6, 8))
    for name, steps in {"paper": paper, "fast": fast}.items():
        preset = get_preset(name)
        learned = {key: getattr(preset, key) for key in ("n_prototypes", "reg", "ema", "start", "batch_size")}
        settings = learned | {"solver": "streamed", "precision": "reduced", "tol": 0.01 if name == "paper" else preset.tol}
        losses[name] = {}
        for n_steps in steps:
            learner = PrototypeLearner(0.3, max_steps=n_steps, n_epochs=max(1, n_steps), device=device, **settings)
            losses[name][n_steps] = _loss(learner.fit(train, held_out), held_out.to(device))
    last = list(losses["paper"].values())[-1]
    losses["fast_steps_to_paper"] = next((n for n, loss in losses["fast"].items() if loss <= last), None)
    return losses


def _loss(learner, maps):
    cost = BlockCost(learner.prototypes_, learner.positions_, learner.grid_shape_, learner.alpha)
    cost.scale = CostScale(1.0, cost.largest_space)
    return sinkhorn_streamed(cost, by_cell(maps), reg=learner.reg).loss
