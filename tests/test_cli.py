"""The command line."""

import csv

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from small_data import write_category, write_encoder

from pradot import Pradot
from pradot.cli import main
from pradot.encoder import make_encoder
from pradot.images import find_images
from pradot.paper import runs
from pradot.paper.records import read_records

pytestmark = pytest.mark.usefixtures("few_prototypes")


def quick(encoder):
    return ["--preset", "fast", "--encoder", encoder, "--max-steps", "2", "--batch-size", "2", "--device", "cpu"]


def test_run_tables_predict(here, capsys):
    encoder = write_encoder(here)
    for name in ("bottle", "own"):
        write_category(here / "data", name)
    run = ["run", "--dataset", "mvtec_ad", "--root", "data", *quick(encoder), "--save-model", "models"]
    assert main(run) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny.py:build at 64 px, feature maps scale 2: 8 x 8, scale 3: 4 x 4\n")
    assert "bottle: fast, shortened, tiny.py:build, image AUROC" in printed and "own: " in printed
    assert {record["category"] for record in read_records("runs").values()} == {"bottle", "own"}
    assert main(run) == 0
    assert capsys.readouterr().out.count("finished before") == 2

    assert main(["tables", "--out", "tables"]) == 0
    assert "image AUROC" in capsys.readouterr().out
    assert (here / "tables" / "mvtec_ad-fast_shortened-tiny.py_build.csv").exists()

    predict = ["predict", "--model", "models/own", "--images", "data/own/test/spot", "--out", "scores"]
    assert main(predict) == 1  # the model's encoder is a file of ours, which a model may not run by itself
    assert "give that encoder" in capsys.readouterr().err
    assert main([*predict, "--encoder", encoder, "--device", "cpu"]) == 0
    rows = list(csv.DictReader((here / "scores" / "scores.csv").open()))
    assert [row["file"] for row in rows] == ["000.png", "001.png", "002.png"]
    recorded = next(r for r in read_records("runs").values() if r["category"] == "own")
    expected = {image["file"]: image["score"] for image in recorded["images"]}
    for row in rows:
        assert float(row["anomaly_score"]) == pytest.approx(expected[f"test/spot/{row['file']}"], abs=1e-5)
        assert Image.open(here / "scores" / "heat_maps" / f"{row['file']}.png").size == (48, 48)


@pytest.mark.filterwarnings("ignore:.*on record")
def test_predict_makes_the_models_encoder_from_its_weights_alone(here, capsys):
    """Backbone, scales and image size are those of the model, none of them the default."""
    write_category(here / "data", "own")
    torch.save(timm.create_model("test_resnet").state_dict(), here / "mine.pth")
    encoder = make_encoder("test_resnet", "mine.pth", scales=(1, 2), image_size=96, device="cpu")
    detector = Pradot(encoder, branches=[(1, 0.0)], n_prototypes=1, n_epochs=1, n_iter=2)
    detector.fit(find_images(here / "data" / "own" / "train" / "good")).save(here / "model")
    predict = ["predict", "--model", "model", "--images", "data/own/test/spot", "--out", "scores", "--device", "cpu"]
    assert main(predict) == 1
    assert "test_resnet+mine" in capsys.readouterr().err
    assert main([*predict, "--weights", "mine.pth"]) == 0
    rows = list(csv.DictReader((here / "scores" / "scores.csv").open()))
    expected = detector.anomaly_scores(find_images(here / "data" / "own" / "test" / "spot"))
    assert [float(row["anomaly_score"]) for row in rows] == pytest.approx(expected, abs=1e-5)


def test_one_category_alone(here):
    for name in ("bottle", "own"):
        write_category(here / "data", name)
    arguments = ["run", "--dataset", "mvtec_ad", "--root", "data", "--category", "own", *quick(write_encoder(here))]
    assert main(arguments) == 0
    assert [record["category"] for record in read_records("runs").values()] == ["own"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["run", "--dataset", "mvtec_ad", "--root", "nowhere"], "nowhere"),
        (["run", "--dataset", "folder"], "--root is missing"),
        (["run", "--dataset", "visa"], "No category of VisA in "),
        (["run", "--dataset", "visible", "--root", "."], "visible"),
        (["run", "--dataset", "mvtec_ad", "--root", "data", "--preset", "papier"], "unknown preset"),
        (["run", "--dataset", "mvtec_ad", "--root", "data", "--encoder", "resnet5000"], "resnet5000"),
        (["run", "--dataset", "mvtec_ad", "--root", "data", "--encoder", "no.py:build"], "no.py"),
        (["run", "--dataset", "drawn", "--device", "foo"], "device 'foo' (Expected one of cpu"),
        (["run", "--dataset", "drawn", "--device", "cpu:x"], "Devices found: cpu"),
        (["run", "--dataset", "mvtec_ad", "--root", "data", "--out", "tiny.py"], "Not a directory"),
        (["run", "--dataset", "mvtec_ad", "--root", "data", "--save-model", "runs/models"], "name one outside"),
        (["tables", "--runs", "nowhere"], "no folder of run records"),
        (["predict", "--model", "nowhere", "--images", "data/own/test/good", "--out", "o"], "no model in nowhere"),
        (["predict", "--model", "nowhere", "--images", "empty", "--out", "o"], "empty"),
        (["notebooks", "99_none"], "no notebook '99_none'"),
        (["notebooks", "07_tables", "-p", "speed", "3"], "unknown notebook parameter speed"),
        (["notebooks", "-f", "bad.yaml"], "bad.yaml is no readable YAML file"),
        (["notebooks", "-f", "binary.yaml"], "binary.yaml is no readable YAML file"),
        (["notebooks", "-f", "list.yaml"], "list.yaml holds list"),
        (["notebooks", "-f", "odd.yaml"], "parameters [1], which are no text"),
    ],
)
def test_errors_are_one_message_without_traceback(here, capsys, arguments, expected):
    write_category(here / "data", "own")
    (here / "empty").mkdir()
    for name, content in {"bad": b"a: [1", "binary": b"\xff\xfe\x00", "list": b"- 1", "odd": b"1: 2\nfast: true"}.items():
        (here / f"{name}.yaml").write_bytes(content)
    if arguments[0] == "run" and "--encoder" not in arguments:
        arguments = [*arguments, "--encoder", write_encoder(here)]
    assert main(arguments) == 1
    printed = capsys.readouterr().err
    assert expected in printed and "Traceback" not in printed
    assert not (here / "data" / "drawn").exists()
    assert not (here / "runs").exists() or not read_records("runs")


@pytest.mark.parametrize("setting", [("--max-steps", "0"), ("--batch-size", "0"), ("--seed", "-1"), ("--seed", "4294967296")])
def test_numbers_out_of_range_are_wrong_usage(here, capsys, setting):
    with pytest.raises(SystemExit) as left:
        main(["run", "--dataset", "drawn", *setting])
    assert left.value.code == 2
    assert f"argument {setting[0]}: '{setting[1]}' is no whole number from" in capsys.readouterr().err


def too_large():
    torch.empty(2**46)


def full_gpu():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def too_large_for_numpy():
    np.empty(2**46)


@pytest.mark.parametrize("fill", [too_large, full_gpu, too_large_for_numpy])
def test_want_of_memory_says_what_needs_less(here, capsys, monkeypatch, fill):
    write_category(here / "data", "own")
    monkeypatch.setattr(runs, "run", lambda *args, **kwargs: fill())
    assert main(["run", "--dataset", "mvtec_ad", "--root", "data", *quick(write_encoder(here))]) == 1
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1 and "--batch-size" in printed and "--preset fast" in printed


def test_a_mistake_of_ours_keeps_its_traceback(here, monkeypatch):
    write_category(here / "data", "own")
    monkeypatch.setattr(runs, "run", lambda *args, **kwargs: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match="size"):
        main(["run", "--dataset", "mvtec_ad", "--root", "data", *quick(write_encoder(here))])


def test_unreadable_image_is_named(here, capsys):
    folder = write_category(here / "data", "own")
    (folder / "test" / "good" / "001.png").write_bytes(b"")
    assert main(["run", "--dataset", "mvtec_ad", "--root", "data", *quick(write_encoder(here))]) == 1
    assert "001.png" in capsys.readouterr().err


def test_doctor(here, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no network")))
    write_category(here / "data", "own")
    assert main(["doctor", "--root", "data"]) == 0
    printed = capsys.readouterr().out
    assert "tf_efficientnet_lite0: available" in printed and "own" in printed and "python3" in printed
