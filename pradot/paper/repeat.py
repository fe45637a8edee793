"""Repeat the run that a record describes, and compare the numbers.

Everything is taken from the record: data set, category, every setting (also where the preset of that name has changed since),
seed, encoder, number of threads. Nothing is taken from the cache: all is computed again. Nothing is written near the record.
"""

import contextlib
import tempfile
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import torch

from pradot.errors import PradotError
from pradot.paper.identity import identify
from pradot.paper.provenance import conditions, differences, threads_of
from pradot.paper.recorded import all_metrics, check_data, encoder_of, find_data, preset_of, repeatable_record
from pradot.paper.runs import run

TOLERANCE = 0.001
"""How far a metric in [0, 1] may be from the recorded one where versions, processor, threads or device are others.

Chosen, with room above what was measured: on bottle of MVTec AD (512 px, preset fast, tf_efficientnet_lite0) two threads are
less than 0.00005 points from one in all 8 metrics and in all 24 of single kinds of defects, and image scores of up to 0.42
differ by at most 2e-8; with as many threads as then all bytes were the same. Other processors and GPUs were not measured. Where
images are few a metric moves in larger steps: one exchanged pair of 20 normal and 63 anomalous images is 0.08 points of image
AUROC.
"""


class Repeated(NamedTuple):
    """What came of repeating a run."""

    verdict: str  # "equal", "within tolerance" or "differs"
    table: pd.DataFrame  # a line per metric: then, now and difference in percent, and a verdict of its own
    lines: list[str]  # what else was compared
    path: Path | None  # of the repeat's own record, if it is kept


def repeat(path, *, root=None, encoder=None, weights=None, device=None, threads=None, out=None, progress=False, say=None):
    """Repeat the run of a record.

    Parameters
    ----------
    path : str or Path
        The record.
    root : str or Path, optional
        Folder of the data set. None: where the record says that the data were, if that is there, then where
        `pradot.paper.catalogue.find_root` looks.
    encoder : str or Encoder, optional
        None: the record's, unless that is somebody's code, which is run only if it is named here.
    weights : str or Path, optional
        Local file of weights, see `pradot.encoder.make_encoder`.
    device : str, optional
        None: the CPU if the record was made on one, else as `pradot.devices.pick_device` picks.
    threads : int, optional
        Of torch. None: as many as then, if the record tells.
    out : str or Path, optional
        Folder to keep the repeat's own record in; it must be new or empty. None: it is not kept.
    progress : bool
        Show progress bars.
    say : callable, optional
        Is given, before the long work, each line on what is repeated and what differs between then and now.

    Returns
    -------
    Repeated
        The verdict is "equal" if all metrics, image scores, patch scores and the saved model, as far as the record has them,
        are the same to the last bit; "within tolerance" if no metric, also none of a single kind of defect, differs by more
        than `TOLERANCE`; else "differs".

    Raises
    ------
    PradotError
        The record cannot be read or does not fit this version, the data are not found or are others, the encoder cannot be had
        or is another one, or `out` is not empty.
    """
    path, say = Path(path), say or (lambda line: None)
    then = repeatable_record(path)
    preset = preset_of(then, path)
    if out is not None and Path(out).exists() and (not Path(out).is_dir() or any(Path(out).iterdir())):
        raise PradotError(f"{out} (--out) is not an empty folder: name a new one, so that no other record is found or replaced")
    root, category = find_data(then, root, path)
    with _threads(threads or threads_of(then)), tempfile.TemporaryDirectory(prefix="pradot-repeat-") as scratch:
        encoder = encoder_of(then, preset, path, encoder=encoder, weights=weights, device=device)
        what = (then["dataset"], root, category, preset, encoder)
        data, identity, _ = identify(*what, seed=then["seed"], progress=progress)
        check_data(then, identity["data_sha256"], data, path)
        found, unknown = differences(then, conditions(encoder.device))
        found += _other_encoder(then["encoder"], identity["encoder"])
        unknown += [] if "data_sha256" in then else ["the contents of the data"]
        say(f"{then['dataset']} {category}, {then['label']}, {encoder.name}, seed {then['seed']}, run {then['created']}")
        say(f"data: {data.root}, {len(data.files)} files")
        for title, lines in {"differs": found, "not told by the record": unknown}.items():
            for line in lines:
                say(f"{title}: {line}")
        is_alike = not found and not unknown
        if is_alike:
            say("code, versions, processor and threads are those of then")
        model = Path(scratch) / "model" if then.get("model_sha256") else None
        now, now_path, _ = run(*what, seed=then["seed"], out=out or Path(scratch) / "runs", model=model, progress=progress)
        table, lines = _metrics_table(then, now)
        same, others = _same_bytes(then, now, path, now_path)
    lines += others
    is_equal = same and (table["verdict"] == "equal").all()
    verdict = "differs" if (table["verdict"] == "differs").any() else "equal" if is_equal else "within tolerance"
    if verdict != "equal" and is_alike and str(encoder.device) == "cpu":
        lines.append("the same bytes were expected: these numbers depend on something that is not recorded")
    return Repeated(verdict, table, lines, None if out is None else now_path)


@contextlib.contextmanager
def _threads(n):
    """As many threads of torch as told."""
    before = torch.get_num_threads()
    torch.set_num_threads(n or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _other_encoder(then, now):
    """What of an encoder with the same weights is described otherwise."""
    names = {"name": "encoder", "weights_source": "weights", "layers_sha256": "hash of the encoder's layers"}
    return [
        f"{said}: {then[name][:50]} then, {now[name][:50]} now"
        for name, said in names.items()
        if isinstance(then.get(name), str) and then[name] != now[name]
    ]


def _metrics_table(then, now):
    """The metrics that both records have, in percent, and what is to be said of others."""
    old, new = dict(all_metrics(then)), dict(all_metrics(now))
    rows = []
    for name in (name for name in old if name in new):
        a, b = (float("nan") if value is None else 100 * value for value in (old[name], new[name]))
        is_within = abs(b - a) <= 100 * TOLERANCE
        rows.append((name, a, b, b - a, "equal" if old[name] == new[name] else "within tolerance" if is_within else "differs"))
    table = pd.DataFrame(rows, columns=["metric", "then", "now", "difference", "verdict"]).set_index("metric")
    alone = {"then": [name for name in old if name not in new], "now": [name for name in new if name not in old]}
    return table, [f"not compared, only {when}: {', '.join(names)}" for when, names in alone.items() if names]


def _same_bytes(then, now, path, now_path):
    """Whether all but the metrics is the same to the last bit, and lines that say so of each."""
    old, new = ({one["file"]: one["score"] for one in record.get("images", [])} for record in (then, now))
    same, lines = [old == new], []
    if old.keys() == new.keys() and old:
        largest = max(abs(new[file] - old[file]) for file in old)
        lines.append(f"image scores: largest difference {largest:.1e}, scores are up to {max(map(abs, new.values())):.2g}")
    scores = [one.with_suffix(".safetensors") for one in (path, now_path)]
    if all(one.is_file() for one in scores):
        same.append(scores[0].read_bytes() == scores[1].read_bytes())
        lines.append(f"patch scores: {'the same' if same[-1] else 'other'} bytes")
    elif scores[1].is_file():
        lines.append(f"patch scores: not compared, no {scores[0].name} lies beside the record")
    if then.get("model_sha256"):
        same.append(then["model_sha256"] == now["model_sha256"])
        lines.append(f"saved model: {'the same' if same[-1] else 'other'} bytes")
    return all(same), lines
