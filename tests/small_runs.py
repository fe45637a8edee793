"""Experiments so small that a run takes a fraction of a second, and what runs leave."""

import json
from dataclasses import replace

from pradot.paper.presets import PRESETS, RIVALS
from pradot.paper.records import hash_record, read_record

# The whole way through the program in a fraction of a second.
SMALL = {"image_size": 64, "n_prototypes": 1, "n_iter": 5, "max_steps": 2, "batch_size": 2}
EXPERIMENTS = {name: replace(preset, **SMALL) for name, preset in PRESETS.items()}
EXPERIMENTS |= {name: replace(rival, image_size=64) for name, rival in RIVALS.items()}
FAST = EXPERIMENTS["fast"]
OF_TIME = ("seconds", "created", "peak_memory_gb", "sha256")  # the last is over all others


def change(path, **changes):
    record = json.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            del record[name]
        else:
            record[name] = record[name] | value if isinstance(value, dict) else value
    write_record(path, record)
    return record


def write_record(path, record):
    """As a run writes it, with its checksum."""
    path.write_text(json.dumps(record | {"sha256": hash_record(record)}))


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def numbers(path):
    """All that a run leaves, but for times."""
    record = {name: value for name, value in read_record(path).items() if name not in OF_TIME}
    return record, path.with_suffix(".safetensors").read_bytes()
