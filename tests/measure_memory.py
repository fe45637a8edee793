"""How much memory fitting and scoring take, and whether a long run leaks: measurements with a plot each, no tests.

    python tests/measure_memory.py grow --out tests/memory     # memory against images, prototypes, resolution: half an hour
    python tests/measure_memory.py soak --out tests/soak --minutes 120

Each point is a process of its own: drawn images, the offline default encoder, preset best. Memory is sampled every 20 ms: what
only the process has (anonymous; it cannot be taken back) and all that is resident (with the pages of mapped files, which the
system takes back when it needs them).
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image

from pradot import Encoder, Pradot
from pradot.cli import main as pradot_command
from pradot.files import replacing
from pradot.images import find_images
from pradot.paper.presets import get_preset

KEEP_GB = 0.25
N_IMAGES = (100, 200, 400, 700, 1000)
N_PROTOTYPES = (1, 4, 8, 16)
SIZES = (160, 224, 288, 352)
WHAT = {
    "fit": "fit: images",
    "score": "anomaly_scores: images",
    "predict": "predict: images",
    "prototypes": "fit: prototypes per position",
    "size": "fit: side of the images, px",
}


def memory_mb():
    """Anonymous and all resident memory of this process, MB."""
    found = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return np.array([int(found[name].split()[0]) * 1024 / 1e6 for name in ("RssAnon", "VmRSS")])


class Peak:
    """Largest memory while a block runs."""

    def __enter__(self):
        self.highest, self._done = memory_mb(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._done.wait(0.02):
            self.highest = np.maximum(self.highest, memory_mb())

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()


def draw(folder, n, size):
    """Write `n` images of stripes and noise."""
    rng = np.random.default_rng(0)
    stripes = np.sin(np.arange(size) / 9)[:, None]
    for number in range(n):
        image = 140 + 50 * stripes * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, (size, size, 3))
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05}.png")
    return find_images(folder)


def make(n_prototypes=4, size=224):
    """A detector of preset best, its encoder made."""
    preset = replace(get_preset("best"), image_size=size, n_prototypes=n_prototypes)
    encoder = Encoder(scales=preset.encoder_scales, image_size=size)
    detector = preset.detector(encoder, 0)
    return detector.set_params(keep_gb=KEEP_GB)


def point(what, value):
    """One point of the plot, in this process."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        size = value if what == "size" else 224
        for part in ("train", "new"):
            (folder / part).mkdir()
        scoring = what in ("score", "predict")
        train = draw(folder / "train", 24 if scoring else value if what == "fit" else 100, size)
        new = draw(folder / "new", value, size) if scoring else []
        detector = make(value if what == "prototypes" else 4, size)
        if scoring:
            detector.set_params(max_steps=1).fit(train)
            detector.save(folder / "model")
        at_rest, start = memory_mb(), time.perf_counter()
        with Peak() as peak:
            if what == "score":
                detector.anomaly_scores(new)
            elif what == "predict":
                pradot_command(
                    ["predict", "--model", str(folder / "model"), "--images", str(folder / "new"), "--out", str(folder / "out")]
                )
            else:
                detector.fit(train)
        return {
            "what": what,
            "value": value,
            "at_rest_mb": at_rest.tolist(),
            "peak_mb": peak.highest.tolist(),
            "seconds": time.perf_counter() - start,
        }


def grow(out):
    """Every point in a process of its own, then the plot."""
    values = {"fit": N_IMAGES, "score": N_IMAGES, "predict": N_IMAGES, "prototypes": N_PROTOTYPES, "size": SIZES}
    points = []
    for what, of_what in values.items():
        for value in of_what:
            command = [sys.executable, __file__, "point", what, str(value)]
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
            points.append(json.loads(done.stdout.splitlines()[-1]))
            print(points[-1], flush=True)
            write(out, {"keep_gb": KEEP_GB, "points": points})
    plot(points, out)


def plot(points, out):
    """Largest memory against what grows, a panel each."""
    values = list(dict.fromkeys(one["what"] for one in points))
    fig, axes = plt.subplots(1, len(values), figsize=(10.5, 2.6), sharey=True, layout="constrained")
    for ax, what in zip(axes, values, strict=True):
        own = [one for one in points if one["what"] == what]
        x = [one["value"] for one in own]
        for column, (label, style) in enumerate((("its own", "o-"), ("with mapped files", "s:"))):
            ax.plot(x, [one["peak_mb"][column] for one in own], style, ms=4, color=f"C{column}", label=label)
        ax.axhline(np.mean([one["at_rest_mb"][0] for one in own]), color="0.6", lw=1, label="its own, before")
        ax.set(xlabel=WHAT[what], ylim=(0, None))
    axes[0].set_ylabel("largest memory, MB")
    axes[1].legend(fontsize=8, frameon=False, loc="upper left")  # beside flat curves
    save(fig, out)


def soak(out, minutes):
    """Fit, score, save, load, score again, over and over: memory after each round and its slope."""
    encoder = Encoder()
    seconds, memory, start = [], [], time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "images").mkdir()
        images = draw(folder / "images", 16, 224)
        first = None
        while time.monotonic() - start < 60 * minutes:
            settings = {"branches": [(3, 0.3)], "n_prototypes": 4, "max_steps": 3, "batch_size": 8, "solver": "streamed"}
            detector = Pradot(encoder, cache=folder / "cache", start="spread", **settings).fit(images)
            scores = detector.anomaly_scores(images)
            detector.save(folder / "model")
            again = Pradot.load(folder / "model").anomaly_scores(images)  # with an encoder of its own
            first = scores if first is None else first
            if not (np.array_equal(scores, again) and np.array_equal(scores, first)):
                sys.exit(f"round {len(seconds)}: the scores have changed")
            for kept in (folder / "cache").iterdir():
                kept.unlink()  # nothing is found again: every round computes and writes all
            seconds.append(time.monotonic() - start)
            memory.append(memory_mb().tolist())
            if len(seconds) % 20 == 0:
                print(f"{len(seconds)} rounds, {seconds[-1] / 60:.0f} minutes, {memory[-1][0]:.0f} MB", flush=True)
                write(out, {"seconds": seconds, "memory_mb": memory})
    seconds, memory = np.array(seconds), np.array(memory)
    later = seconds > 0.25 * seconds[-1]  # after the start, when libraries still fill their own caches
    slope = float(np.polyfit(seconds[later] / 3600, memory[later, 0], 1)[0])
    mean = float(memory[later, 0].mean())
    found = {"rounds": len(seconds), "minutes": float(seconds[-1]) / 60, "slope_mb_per_hour": slope, "mb": mean}
    print(found)
    write(out, found | {"seconds": seconds.tolist(), "memory_mb": memory.tolist()})
    fig, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
    ax.plot(seconds / 60, memory[:, 0], lw=1)
    ax.set(xlabel="minutes", ylabel="its own memory, MB", ylim=(0, 1.2 * memory.max()))
    ax.set_title(f"{len(seconds)} rounds of fit, score, save, load: {slope:+.2f} MB an hour", fontsize=9)
    save(fig, out)


def write(out, found):
    """Write what was measured."""
    with replacing(out.with_suffix(".json")) as temporary:
        temporary.write_text(json.dumps(found) + "\n")


def save(fig, out):
    """Write a plot."""
    with replacing(out.with_suffix(".png")) as temporary:
        fig.savefig(temporary, dpi=120, format="png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("grow", "soak"):
        command = commands.add_parser(name)
        command.add_argument("--out", type=Path, required=True, help="where to write .json and .png")
    command.add_argument("--minutes", type=float, default=120)
    one = commands.add_parser("point")
    one.add_argument("what", choices=WHAT)
    one.add_argument("value", type=int)
    options = parser.parse_args()
    if options.command == "grow":
        grow(options.out)
    elif options.command == "soak":
        soak(options.out, options.minutes)
    else:
        print(json.dumps(point(options.what, options.value)))
