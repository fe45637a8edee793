"""Run records on disk: reading them, and telling whole ones from what was cut, changed or is something else."""

import hashlib
import json
import re
from pathlib import Path

from pradot.errors import PradotError, is_number
from pradot.files import plain_file

RECORD_FORMAT = 1


RECORD_KEYS = {
    **{"format": int, "label": str, "dataset": str, "category": str, "settings": dict, "evaluation_size": int | None},
    **{"encoder": dict, "seed": int, "metrics": dict, "by_defect": dict, "image_shapes": dict, "branches": list},
    **{"versions": dict, "created": str},
}
"""What tables need of a record, and its kind: what has not all of it is none."""


def read_record(path):
    """One record as a dict.

    Raises
    ------
    PradotError
        The file is no record of this version, or was changed after it was written.
    """
    try:
        plain_file(path)
        record = json.loads(Path(path).read_text())
        missing = [key for key in RECORD_KEYS if key not in record]
        if not missing:
            _check_kinds(record)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise PradotError(
            f"{path} is not a whole run record ({type(error).__name__}: {error}): delete it and run again"
        ) from error
    if missing:
        raise PradotError(
            f"{path} is not a whole run record: it has no {', '.join(missing[:3])}. Move it out of the folder if it is "
            "something else, such as a saved model's config.json; if it is a record, delete it and run again"
        )
    if record["format"] != RECORD_FORMAT:
        raise PradotError(f"{path} is a record of format {record['format']}; this version reads {RECORD_FORMAT}: run it again")
    # The first records had no checksum.
    if record.get("sha256", hash_record(record)) != hash_record(record):
        raise PradotError(f"{path} is not as it was written, so that its numbers are nobody's: delete it and run again")
    return record


def hash_record(record):
    """SHA-256 over a record, but for its own entry of it."""
    content = {key: value for key, value in record.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _check_kinds(record):
    """Raise what says where a value is of another kind than records have; metrics are fractions or None."""
    values = [(key, record[key], kind) for key, kind in RECORD_KEYS.items()]
    names = ("name", "weights_source", "weights_sha256")
    values += [(f"the encoder's {name}", record["encoder"][name], str) for name in names]
    for name, value, kind in values:
        if not isinstance(value, kind):
            raise TypeError(f"{name} is {str(value)[:40]!r}")
    for metrics in (record["metrics"], *record["by_defect"].values()):
        for name, value in metrics.items():
            if value is not None and not (is_number(value) and -1e-6 <= value <= 1 + 1e-6):  # rounding
                raise TypeError(f"{name} is {str(value)[:40]!r}, no fraction")


def read_records(folder):
    """All records under a folder.

    Returns
    -------
    dict of Path to dict
        In the order of their paths; empty if there is none.

    Raises
    ------
    PradotError
        The folder is missing, or one of its ``*.json`` is no record.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise PradotError(f"no folder of run records at {folder}: make some with `python -m pradot run`")
    # A hidden file is what a killed process left of a record that was never finished.
    return {path: read_record(path) for path in sorted(folder.rglob("*.json")) if not path.name.startswith(".")}


def summary(record):
    """The main numbers of a record in one line."""
    names = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "au_pro_30": "AU-PRO 30 %", "au_pro_05": "AU-PRO 5 %"}
    names["au_spro_05"] = "AU-sPRO 5 %"  # of MVTec AD LOCO
    found = {title: record["metrics"].get(name) for name, title in names.items()}
    values = [f"{title} {100 * value:.1f}" for title, value in found.items() if value is not None]
    seconds = sum(record["seconds"].values())
    return ", ".join([record["label"], record["encoder"]["name"], *(values or ["no metrics"]), f"{seconds:.0f} s"])


def slug(text):
    """A name that any file system takes, of at most 64 signs: ``paper, shortened`` becomes ``paper_shortened``."""
    return re.sub(r"[^A-Za-z0-9.]+", "_", text).strip("_")[:64]
