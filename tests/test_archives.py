"""Archives put in their place; what is found on disk, and what is wrong with it."""

import re
import shutil

import pytest
from PIL import Image
from small_archives import names_in, pack
from small_data import write_category, write_loco_category, write_visa

from pradot import PradotError
from pradot.cli import main
from pradot.paper.archives import add
from pradot.paper.datasets import load_category
from pradot.paper.sources import SOURCES


@pytest.mark.parametrize("ending", [".tar.xz", ".tar", ".zip"])
@pytest.mark.parametrize("around", ["", "VisA_20220922", "some folder"])
def test_a_downloaded_archive_is_unpacked_and_known_by_what_it_holds(tmp_path, capsys, ending, around):
    write_visa(tmp_path / "made" / around, ["candle"])
    archive = pack(tmp_path / "made", tmp_path / f"visa{ending}")
    assert main(["data", "add", str(archive), "--root", str(tmp_path / "data")]) == 0
    printed = capsys.readouterr().out
    assert "is not that of an official archive" in printed and "candle" in printed and "3 (900)" in printed
    assert names_in(tmp_path / "data") == ["visa"] and archive.exists()
    assert len(load_category("visa", tmp_path / "data", "candle").test) == 4
    assert main(["data", "add", str(archive), "--root", str(tmp_path / "data")]) == 1
    assert "is there already" in capsys.readouterr().err


def test_an_archive_of_something_else_leaves_nothing(tmp_path):
    write_category(tmp_path / "made", "own")
    archive = pack(tmp_path / "made", tmp_path / "own.tar")
    with pytest.raises(PradotError, match=r"no published category of MVTec AD, MVTec AD LOCO, VisA .* folders \("):
        add(archive, tmp_path / "data")
    assert names_in(tmp_path / "data") == []
    with pytest.raises(PradotError, match="No archive"):
        add(tmp_path / "nowhere.tar", tmp_path / "data")


def test_what_is_found_and_what_is_wrong_with_it(tmp_path, capsys):
    bottle = write_category(tmp_path / "mvtec_ad", "bottle")
    loco = write_loco_category(tmp_path / "mvtec_loco")
    command = ["data", "--root", str(tmp_path)]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "| bottle     | 6 (209)    | 3 (20)" in printed and "1 of 15 categories" in printed
    assert "4 (335)    | 2 (54)" in printed and "1 of 5 categories" in printed
    assert f"VisA: not in {tmp_path}; python -m pradot data get visa" in printed and SOURCES["visa"].page in printed
    assert main([*command, "--names"]) == 0
    assert capsys.readouterr().out == "mvtec_ad\nmvtec_loco\n"

    (bottle / "train/good/002.png").write_bytes(b"")
    (bottle / "ground_truth/spot/000_mask.png").unlink()
    Image.new("L", (7, 9), 255).save(bottle / "ground_truth/spot/001_mask.png")
    Image.new("L", (48, 48)).save(bottle / "ground_truth/spot/002_mask.png")
    (loco / "defects_config.json").write_text("[]")
    shutil.rmtree(write_category(tmp_path / "mvtec_ad", "zipper") / "test")
    assert main([*command, "--quick"]) == 1  # opens nothing
    printed = capsys.readouterr()
    assert "bottle: 1 of 3 masks are missing (of spot/000.png)" in printed.out and "zipper: No folder test" in printed.out
    assert "2 problem(s)" in printed.err
    assert main(command) == 1
    printed = capsys.readouterr().out
    for said in (
        r"bottle: Cannot read the image .*002\.png: the file is empty",
        r"bottle: The mask .*001_mask\.png has 9 x 7 pixels",
        r"bottle: The mask .*002_mask\.png shows no defect",
        r"juice_bottle: .*defects_config\.json does not give",
        r"\| zipper +\| \? \(240\)",
    ):
        assert re.search(said, printed), said
