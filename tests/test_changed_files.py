"""Files of an earlier run, changed: features and prototypes are made again, models and records refused by name."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from attempts import NAN, QUICK, attempt
from safetensors.torch import load_file, save_file
from small_data import write_category, write_encoder

from pradot import Encoder, Pradot, PradotError
from pradot.paper.presets import get_preset
from pradot.paper.records import read_record
from pradot.paper.runs import read_branch_maps, run
from pradot.sealed import load_sealed, save_sealed

pytestmark = pytest.mark.usefixtures("few_prototypes")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[-3] ^= 0x40
    path.write_bytes(content)


def rewritten(path):
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)


def with_its_metadata(path):
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path, metadata=metadata)


def header_edited(path):
    content = path.read_bytes()
    assert content.count(b'"F32"') >= 1
    path.write_bytes(content.replace(b'"F32"', b'"I32"'))


CHANGES = {
    "bytes flipped": flipped,
    "edited": rewritten,
    "edited, metadata kept": with_its_metadata,
    "header edited": header_edited,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-7]),
    "empty": lambda path: path.write_bytes(b""),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
}


@pytest.mark.parametrize("attack", CHANGES)
def test_a_changed_file_of_tensors_is_refused(tmp_path, attack):
    path = tmp_path / "x.safetensors"
    save_sealed({"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)}, path, {"said": "yes"})
    tensors, metadata = load_sealed(path)
    assert tensors["a"].shape == (2, 3) and metadata == {"said": "yes"}
    CHANGES[attack](path)
    with pytest.raises(PradotError, match=r"x\.safetensors is damaged"):
        load_sealed(path)


@pytest.mark.parametrize("attack", ["bytes flipped", "edited", "header edited", "swapped"])
def test_changed_features_and_prototypes_are_made_again(tiny_encoder, tmp_path, draw, attack):
    cache, images = tmp_path / "cache", draw(3, 0)
    detector = Pradot(tiny_encoder, **QUICK, cache=cache).fit(images)
    expected = detector.anomaly_scores(images)
    Pradot(tiny_encoder, **QUICK, random_state=1, cache=cache).fit(draw(3, 1))
    features = sorted(cache.glob("[0-9a-f]*.safetensors"))
    prototypes = sorted(cache.glob("prototypes-*.safetensors"))
    assert len(features) == len(prototypes) == 2
    for one, other in (features, prototypes):
        if attack == "swapped":
            one.rename(cache / "x"), other.rename(one), (cache / "x").rename(other)
        else:
            CHANGES[attack](one)
            CHANGES[attack](other)
    with pytest.warns(UserWarning) as warned:
        again = Pradot(tiny_encoder, **QUICK, cache=cache).fit(images)
    said = " ".join(str(one.message) for one in warned)
    assert "computed again" in said and "learned again" in said and "damaged" in said
    assert again.anomaly_scores(images).tolist() == expected.tolist()


@pytest.mark.parametrize("attack", ["bytes flipped", "edited", "edited, metadata kept", "header edited", "a pipe"])
def test_a_changed_model_is_refused(tiny_encoder, tmp_path, draw, attack):
    Pradot(tiny_encoder, **QUICK).fit(draw(2, 0)).save(tmp_path)
    CHANGES[attack](tmp_path / "model.safetensors")
    with pytest.raises(PradotError, match=f"in {tmp_path} (is damaged|is missing)|model.safetensors is missing"):
        Pradot.load(tmp_path, encoder=tiny_encoder)


def test_a_model_changed_in_both_files_alike_is_refused(tiny_encoder, tmp_path, draw):
    Pradot(tiny_encoder, **QUICK).fit(draw(2, 0)).save(tmp_path)
    for name in ("config.json", "model.safetensors"):
        content = (tmp_path / name).read_bytes()
        assert b"training" in content
        (tmp_path / name).write_bytes(content.replace(b"training", b"practice"))
    with pytest.raises(PradotError, match=r"is damaged.*checksum.*fit it again"):
        Pradot.load(tmp_path, encoder=tiny_encoder)
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(PradotError, match="is damaged"):
        Pradot.load(tmp_path, encoder=tiny_encoder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, few_prototypes):
    """A finished run: its folder and its record's path."""
    folder = tmp_path_factory.mktemp("finished")
    root = write_category(folder, "part", n_train=3, n_good=2, n_bad=2)
    preset = get_preset("fast", max_steps=1, batch_size=2)
    return folder, run("folder", root, "part", preset, Encoder(write_encoder(folder), image_size=64), out=folder / "runs")[1]


@pytest.fixture
def record_path(finished, here):
    shutil.copytree(finished[0] / "runs", here / "runs")
    return here / "runs" / finished[1].relative_to(finished[0] / "runs")


def edited(**changes):
    """Entries of a record changed as by hand, or by a program that keeps the checksum up to date or knows of none."""

    def edit(path, sealed):
        record = json.loads(path.read_text())
        for key, value in changes.items():
            record[key] = {**record[key], **value} if isinstance(value, dict) and value else value
        if not sealed:
            del record["sha256"]
        path.write_text(json.dumps(record))

    return edit


RECORD_EDITS = {
    "no metrics": edited(metrics=[]),
    "a metric in words": edited(metrics={"image_auroc": "high"}),
    "a metric above 1": edited(metrics={"image_auroc": 7}),
    "a metric of NaN": edited(metrics={"image_auroc": NAN}),
    "no encoder": edited(encoder="resnet"),
    "an encoder of no name": edited(encoder={"name": None}),
    "no settings": edited(settings=None),
    "no kinds of defects": edited(by_defect=3),
    "no shapes": edited(image_shapes=3),
    "no versions": edited(versions=None),
    "no branches": edited(branches=None),
    "no category": edited(category=None),
    "no data set": edited(dataset=3),
    "a seed in words": edited(seed="x"),
    "a date in numbers": edited(created=3),
}


@pytest.mark.parametrize("sealed", [True, False], ids=["checksum kept", "no checksum"])
@pytest.mark.parametrize("attack", RECORD_EDITS)
def test_an_edited_record_is_refused_by_name(record_path, capsys, attack, sealed):
    RECORD_EDITS[attack](record_path, sealed)
    status, _, error = attempt(capsys, "tables", "--out", "tables")
    assert status == 1 and str(record_path.relative_to(Path.cwd())) in error and "delete it and run again" in error
    assert not Path("tables").exists()


def test_a_plausible_number_in_a_record_is_refused_too(record_path, capsys, finished, monkeypatch):
    before = read_record(record_path)
    edited(metrics={"image_auroc": 0.987})(record_path, True)
    assert "is not as it was written" in attempt(capsys, "tables", "--out", "tables")[2]
    preset = get_preset("fast", max_steps=1, batch_size=2)
    encoder = Encoder(write_encoder(finished[0]), image_size=64)
    record, path, is_new = run("folder", finished[0] / "part", "part", preset, encoder, out="runs")
    assert is_new and path.samefile(record_path) and record["metrics"] == before["metrics"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_text("[" * 100_000),
        lambda path: path.write_bytes(b"\xff\xfe\0"),
        lambda path: path.write_bytes(b""),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.unlink(), path.symlink_to(path.name)),
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: path.write_text(path.read_text().replace('"format": 1', '"format": 0')),
    ],
    ids=["deep", "binary", "empty", "pipe", "link to itself", "folder", "older format"],
)
def test_what_is_no_record_is_named(record_path, capsys, spoil):
    spoil(record_path)
    status, _, error = attempt(capsys, "tables", "--out", "tables")
    assert status == 1 and record_path.name in error and "run" in error


@pytest.mark.parametrize("attack", ["cut", "bytes flipped", "edited", "empty"])
def test_changed_patch_scores_are_refused(record_path, attack):
    assert len(read_branch_maps(record_path)) == 4
    CHANGES[attack](record_path.with_suffix(".safetensors"))
    with pytest.raises(PradotError, match=r"\.safetensors is damaged.*: delete the record beside it and run again"):
        read_branch_maps(record_path)


def test_patch_scores_of_another_record_are_refused(record_path):
    path = record_path.with_suffix(".safetensors")
    tensors, metadata = load_sealed(path)
    save_sealed({name: tensor + 1 for name, tensor in tensors.items()}, path, metadata)
    with pytest.raises(PradotError, match=r"\.safetensors holds the patch scores of another run: delete the record beside it"):
        read_branch_maps(record_path)
