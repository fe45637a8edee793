"""Weights, models and records that somebody else has made to do harm: nothing is run, read or written elsewhere."""

import csv
import io
import json
import os
import pickle
from pathlib import Path

import pytest
import timm
import torch
from hostile import XSS, files_in, said_in_one_line
from PIL import Image
from small_data import write_category

from pradot import Encoder, Pradot, PradotError
from pradot.cli import main
from pradot.paper.records import read_record
from pradot.paper.tables import as_rows, conditions, write_tables
from pradot.sealed import load_sealed, save_sealed

pytestmark = pytest.mark.usefixtures("few_prototypes", "no_switch")


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
@pytest.mark.parametrize("write", ["pickle", "torch", "inside a state dict", "old torch"])
def test_weights_that_are_code_are_refused_and_not_run(here, capsys, ending, write):
    write_category(here, "own", n_train=2)
    evil, path = Evil(f"touch {here / 'owned'}"), here / f"w.{ending}"
    if write == "pickle":
        path.write_bytes(pickle.dumps(evil))
    elif write == "inside a state dict":
        torch.save({**timm.create_model("test_resnet").state_dict(), "evil": evil}, path)
    else:
        torch.save(evil, path, _use_new_zipfile_serialization=write == "torch")
    run = ["run", "--dataset", "folder", "--root", "own", "--encoder", "test_resnet", "--weights", str(path), "--device", "cpu"]
    assert main([*run, "--preset", "fast"]) == 1
    said = said_in_one_line(capsys)
    assert str(path) in said and "not a readable file of weights" in said and "weights_only=False" not in said
    assert not (here / "owned").exists() and not (here / "runs").exists()


@pytest.mark.parametrize("content", [{3: torch.zeros(2)}, {"state_dict": [1]}, {"a": {"b": torch.zeros(2)}}, torch.zeros(3)])
def test_weights_of_another_shape_are_refused(tmp_path, content):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(PradotError, match="holds no tensors by name"):
        Encoder("test_resnet", weights=tmp_path / "w.pth")


def rewritten(folder, change):
    """A model whose settings are changed in both of its files, as somebody would who wants them to fit."""
    config = json.loads((folder / "config.json").read_text())
    change(config)
    text = json.dumps(config, indent=1) + "\n"
    (folder / "config.json").write_text(text)
    save_sealed(load_sealed(folder / "model.safetensors")[0], folder / "model.safetensors", {"config": text})


@pytest.fixture
def model(here, tiny_encoder, draw):
    Pradot(tiny_encoder, branches=[(3, 0.0)], n_prototypes=1, n_epochs=1, n_iter=2).fit(draw(4, 0)).save(here / "model")
    return here / "model"


@pytest.mark.parametrize("name", ["cache", "progress", "encoder", "__class__", "../../x"])
def test_a_model_has_no_say_in_where_it_is_used(model, tiny_encoder, draw, name):
    """A model that brings the setting `cache` would have scoring write into that folder."""
    rewritten(model, lambda config: config["settings"].update({name: str(model.parent / "elsewhere")}))
    with pytest.raises(PradotError, match="settings that no model has"):
        Pradot.load(model, encoder=tiny_encoder).anomaly_scores(draw(1, 1))
    assert not (model.parent / "elsewhere").exists()


@pytest.mark.parametrize("source", ["made by evil.py", "timm evil", ""])
@pytest.mark.parametrize("absolute", [True, False])
def test_a_model_does_not_run_the_file_that_it_names(model, here, capsys, source, absolute, draw):
    (here / "evil.py").write_text("open('owned', 'w')\ndef build(): pass\n")
    name = f"{here / 'evil.py'}:build" if absolute else "evil.py:build"
    rewritten(model, lambda config: config["encoder"].update(name=name, weights_source=source))
    Image.fromarray(draw(1, 1)[0]).save(here / "a.png")
    (here / "w.pth").write_bytes(b"")
    predict = ["predict", "--model", "model", "--images", ".", "--out", "out", "--device", "cpu"]
    for more in ([], ["--weights", "w.pth"]):
        assert main([*predict, *more]) == 1
        said_in_one_line(capsys)
    assert not (here / "owned").exists() and not (here / "out").exists()


@pytest.mark.parametrize(
    "change",
    [
        *({"encoder": None}, {"encoder": {}}, {"settings": []}, {"settings": {"branches": 3}}, {"format": [3]}),
        *({"encoder": {"name": ["x"]}}, {"encoder": {"name": {"a": 1}}}),
    ],
)
def test_a_model_of_other_kinds_is_refused_in_one_line(model, here, capsys, change, draw):
    rewritten(model, lambda config: config.update(change))
    Image.fromarray(draw(1, 1)[0]).save(here / "a.png")
    assert main(["predict", "--model", "model", "--images", ".", "--out", "out", "--device", "cpu"]) == 1
    assert "model" in said_in_one_line(capsys)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"branches": []}, "shorter"),
        ({"branches": [{}]}, "'grid_shape' is missing"),
        ({"branches": [{"grid_shape": 4, "scale": [1.0, 1.0]}]}, "TypeError"),
        ({"branches": [{"grid_shape": [4, 4], "scale": [1.0]}]}, "TypeError"),
        ({"branches": [{"grid_shape": [4, 4], "scale": [1.0, 1.0], "transport": {}}]}, "'dual.0' is missing"),
        ({"n_images": None, "branches": None}, "TypeError"),
    ],
)
def test_a_model_whose_branches_are_not_those_of_a_model_is_refused(model, tiny_encoder, change, why):
    rewritten(model, lambda config: config.update(change))
    with pytest.raises(PradotError, match=f"is damaged .*{why}"):
        Pradot.load(model, encoder=tiny_encoder)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"format": ' + "1" * 5000 + "}", "\x00", "null"])
def test_json_made_to_break_the_reader_is_refused(model, here, capsys, text, draw):
    Image.fromarray(draw(1, 1)[0]).save(here / "a.png")
    (model / "config.json").write_text(text)
    assert main(["predict", "--model", "model", "--images", ".", "--out", "out"]) == 1
    assert "model" in said_in_one_line(capsys)
    (here / "runs").mkdir()
    (here / "runs" / "a.json").write_text(text)
    assert main(["tables", "--runs", "runs", "--out", "tables"]) == 1
    assert "a.json is not a whole run record" in said_in_one_line(capsys)


def test_a_model_is_not_saved_through_a_link(model, here, tiny_encoder):
    detector = Pradot.load(model, encoder=tiny_encoder)
    (here / "mine").write_text("mine")
    for name in ("model.safetensors", "config.json"):
        (model / name).unlink()
        (model / name).symlink_to(here / "mine")
    detector.save(model)
    assert (here / "mine").read_text() == "mine" and not (model / "config.json").is_symlink()
    Pradot.load(model, encoder=tiny_encoder)


LATEX = r"\input{/etc/passwd}\write18{touch owned}$\href{javascript:alert(1)}{x}$"
CELL = '=HYPERLINK("http://evil")|`x`'


def record_of(**changes):
    encoder = {"name": "e", "weights_source": "timm", "weights_sha256": "ab" * 32, "image_size": 224}
    record = {
        **{"format": 1, "label": "fast", "dataset": "mvtec_ad", "category": "bottle", "settings": {"batch_size": 4}},
        **{"evaluation_size": None, "encoder": encoder, "seed": 0, "metrics": {"image_auroc": 0.9, "pixel_auroc": 0.8}},
        **{"by_defect": {"scratch": {"image_auroc": 0.9}}, "image_shapes": {"8x8": 1}, "branches": [{"steps": 2}]},
        **{"versions": {"pradot": "0", "torch": "2", "timm": "1"}, "created": "2026"},
    }
    return record | changes | {"encoder": encoder | changes.get("encoder", {})}


@pytest.mark.parametrize("text", [XSS, LATEX, CELL, "../../../owned", "/tmp/owned/x", "a\n\n# b\x1b[2J", "..", "\udcff"])
def test_tables_show_and_name_what_records_say_without_harm(tmp_path, text):
    changes = {
        **{"dataset": text, "category": text, "label": text, "image_shapes": {text: 1}},
        **{"encoder": {"name": text, "weights_source": text, "weights_sha256": text}},
        **{"by_defect": {text: {"image_auroc": 0.9}}, "versions": {"pradot": text, "torch": "2", "timm": "1"}},
    }
    runs = tmp_path / "deep" / "runs"
    runs.mkdir(parents=True)
    (runs / "a.json").write_text(json.dumps(record_of(**changes)))
    (runs / "b.json").write_text(json.dumps(record_of(**changes | {"dataset": "mvtec_ad"})))
    written = write_tables(runs, runs.parent / "tables")
    assert written and {path.split("/")[0] for path in files_in(tmp_path)} == {"deep"}
    assert {path.split("/")[0] for path in files_in(tmp_path / "deep")} == {"runs", "tables"}
    assert not Path("/tmp/owned").exists()
    for path in (tmp_path / "deep" / "tables").iterdir():
        content = path.read_text()
        assert not set(content) & {"\x1b", "\udcff"} and "<img" not in content and "`x`" not in content
        if path.suffix == ".tex":
            assert "\\input" not in content and "\\write" not in content and "\\href" not in content
        if path.suffix == ".csv":
            assert not [cell for row in csv.reader(io.StringIO(content)) for cell in row if cell[:1] in ("=", "@")]
    said = conditions(as_rows([record_of(**changes)]))  # a notebook shows it as Markdown
    assert not set(said) & set("<>`$\\|\x1b\n")


@pytest.mark.parametrize(
    "changes",
    [
        *({"dataset": 3}, {"category": ["a"]}, {"label": None}, {"metrics": []}, {"metrics": {"image_auroc": "0.9"}}),
        *({"metrics": {"dataset": "../../x"}}, {"by_defect": {"a": 3}}, {"settings": None}, {"versions": "1"}),
    ],
)
def test_a_record_of_other_kinds_is_none(tmp_path, changes):
    (tmp_path / "a.json").write_text(json.dumps(record_of(**changes)))
    with pytest.raises(PradotError, match=r"a\.json is not a whole run record"):
        read_record(tmp_path / "a.json")


def test_a_metric_takes_no_other_columns_place(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "a.json").write_text(
        json.dumps(record_of(metrics={"image_auroc": 0.9, "dataset": 0.1, "record": 0.2}))
    )
    assert set(write_tables(tmp_path / "runs", tmp_path / "tables")) >= {"mvtec_ad-fast-e"}
