import csv
import os
import re

import nbformat
import numpy as np
import pytest
import timm
import torch
from jupyter_client.kernelspec import NoSuchKernel
from PIL import Image
from small_data import write_category, write_encoder

from pradot import Pradot
from pradot.cli import main
from pradot.encoder import default_encoder, make_encoder
from pradot.images import find_images
from pradot.paper import notebooks, runs
from pradot.paper.committed import tidy
from pradot.paper.parameters import parameter_value
from pradot.paper.records import read_records
from pradot.weights import OFFLINE_ENCODER

pytestmark = pytest.mark.usefixtures("few_prototypes")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, with features cached in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def quick(encoder):
    return ["--preset", "fast", "--encoder", encoder, "--max-steps", "2", "--batch-size", "2", "--device", "cpu"]


def test_run_tables_predict(here, capsys):
    encoder = write_encoder(here)
    for name in ("bottle", "own"):
        write_category(here / "data", name)
    run = ["run", "--dataset", "mvtec_ad", "--root", "data", *quick(encoder), "--save-model", "models"]
    assert main(run) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("tiny.py:build at 224 px, feature maps scale 2: 28 x 28, scale 3: 14 x 14\n")
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


@pytest.fixture
def project(here, monkeypatch):
    """A project folder with three notebooks; the second fails when told to, the third prints its parameters."""
    (here / "notebooks").mkdir()
    cells = {
        "00_first": ["a = 1  # a number", "print(a)"],
        "01_second": [
            "a = 1\nfail = False  # raise an error\ndie = False  # end the kernel",
            "import os\nassert os.environ['PRADOT_HEADLESS']",
            "if fail:\n    1 / 0",
            "if die:\n    os.kill(os.getpid(), 9)",
        ],
        "02_third": [
            "root = None\nweights = None\nruns = None\ntables = None\nencoder = None",
            "import os",
            "print(root, weights, runs, tables, encoder, os.environ.get('PRADOT_AUTO_NOTE'), sep='\\n')",
        ],
    }
    for name, sources in cells.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
        notebook.cells[0].metadata["tags"] = ["parameters"]
        nbformat.write(notebook, here / "notebooks" / f"{name}.ipynb")
        tidy(here / "notebooks" / f"{name}.ipynb")
    monkeypatch.setattr(notebooks, "project_root", lambda: here)
    monkeypatch.delenv("PRADOT_HEADLESS", raising=False)
    return here


def test_notebooks_run_in_order_with_their_parameters(project, capsys):
    (project / "more.yaml").write_text("fail: false\n")
    assert main(["notebooks", "-p", "a", "1e-3", "-f", "more.yaml", "--out", "done"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" ...")[0] for line in lines] == ["00_first", "01_second", "02_third"]
    assert all(line.endswith(" s") for line in lines)
    executed = nbformat.read(project / "done" / "00_first.ipynb", as_version=4)
    assert executed.cells[-1].outputs[0].text == "0.001\n"


def test_outputs_are_kept_where_the_notebooks_run_as_they_are(project, capsys):
    path = project / "notebooks" / "00_first.ipynb"
    assert main(["notebooks", "00", "--keep-outputs"]) == 0
    kept = nbformat.read(path, as_version=4)
    assert kept.cells[-1].outputs[0].text == "1\n" and set(kept.metadata) == {"kernelspec", "language_info", "pradot"}
    before = path.read_bytes()
    assert main(["notebooks", "00", "--keep-outputs", "-p", "a", "2"]) == 1
    assert "run without parameters, not with a" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_one_line_per_notebook_and_no_bar_in_it(project, capfd, monkeypatch):
    monkeypatch.delenv("PYTEST_CURRENT_TEST")  # with it, a kernel leaves the terminal's stderr alone anyway
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    path = project / "notebooks" / "00_first.ipynb"
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.append(nbformat.v4.new_code_cell("import sys\nprint('the bar', file=sys.__stderr__, flush=True)"))
    nbformat.write(notebook, path)
    assert main(["notebooks", "00", "--out", "done"]) == 0
    printed = capfd.readouterr()
    assert "the bar" in printed.err
    assert re.fullmatch(r"00_first \.\.\. \r00_first \.\.\. \d+ s\n", printed.out)  # written anew where a bar was
    executed = nbformat.read(project / "done" / "00_first.ipynb", as_version=4)
    assert not any(cell.outputs for cell in executed.cells if "the bar" in cell.source)


def test_notebooks_stop_at_the_first_failure_naming_notebook_and_cell(project, capsys):
    assert main(["notebooks", "-p", "fail", "true"]) == 1
    printed = capsys.readouterr()
    assert "01_second ... failed" in printed.out
    assert "01_second failed in cell" in printed.err and "ZeroDivisionError" in printed.err and "if fail:" in printed.err
    assert main(["notebooks", "01", "-p", "fail", "false"]) == 0


def test_a_kernel_that_dies_is_named_with_notebook_and_cell(project, capsys):
    assert main(["notebooks", "-p", "die", "true"]) == 1
    printed = capsys.readouterr()
    assert "01_second ... failed" in printed.out and "02_third" not in printed.out
    assert "01_second failed in cell 4 (if die:): Kernel died" in printed.err and "memory" in printed.err


def test_a_missing_kernel_is_named(project, capsys, monkeypatch):
    def missing(*args, **kwargs):
        raise NoSuchKernel("python3")

    monkeypatch.setattr(notebooks.papermill, "execute_notebook", missing)
    assert main(["notebooks", "00"]) == 1
    assert "kernel python3, which is missing: pip install ipykernel" in capsys.readouterr().err


def printed_by_third(project):
    executed = nbformat.read(project / "build" / "notebooks" / "02_third.ipynb", as_version=4)
    return executed.cells[-1].outputs[0].text.splitlines()


def test_paths_are_relative_to_where_the_user_stands(project, monkeypatch):
    stand = project / "elsewhere"
    stand.mkdir()
    monkeypatch.chdir(stand)
    monkeypatch.setenv("PRADOT_CACHE", "kept")
    (stand / "more.yaml").write_text("tables: my tables\nencoder: ../net.py:build\n")
    paths = ["-p", "root", "2024", "-p", "weights", "a.pth", "-p", "runs", str(project / "runs")]
    assert main(["notebooks", "02", *paths, "-f", "more.yaml"]) == 0
    expected = [stand / "2024", stand / "a.pth", project / "runs", stand / "my tables", f"{stand / '../net.py'}:build", None]
    assert printed_by_third(project) == [str(value) for value in expected]
    assert os.environ["PRADOT_CACHE"] == str(stand / "kept")
    assert main(["notebooks", "02", "-p", "root", "null", "-p", "encoder", "resnet18"]) == 0
    assert printed_by_third(project) == ["None", "None", "None", "None", "resnet18", "None"]


def test_auto_is_settled_once_for_all_notebooks(project, capsys, monkeypatch):
    monkeypatch.setenv("PRADOT_AUTO_NOTE", "of an earlier call")
    monkeypatch.setattr(notebooks, "default_encoder", lambda: ("the_papers", None))
    assert main(["notebooks", "02", "-p", "encoder", "auto"]) == 0
    assert printed_by_third(project)[-2:] == ["the_papers", "None"]
    assert "note" not in capsys.readouterr().out

    monkeypatch.setattr(notebooks, "default_encoder", lambda: ("the_default", "it stands in"))
    assert main(["notebooks", "02", "-p", "encoder", "auto"]) == 0
    assert printed_by_third(project)[-2:] == ["auto", "it stands in"]
    assert capsys.readouterr().out.startswith("note: it stands in\n02_third ...")
    assert default_encoder() == (OFFLINE_ENCODER, "it stands in")  # what the kernels make of it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("-1", -1),
        ("0.3", 0.3),
        ("1e-3", 1e-3),
        ("true", True),
        ("None", None),
        ("[0, 0.3]", [0, 0.3]),
        ("'3'", "3"),
        ("01", "01"),
        ("nan", "nan"),
        ("/data: mine", "/data: mine"),
        ("resnet50.a1_in1k", "resnet50.a1_in1k"),
    ],
)
def test_parameter_values(text, value):
    found = parameter_value(text)
    assert found == value and type(found) is type(value)
