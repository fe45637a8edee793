"""The alpha explorer in a real browser: JupyterLab runs notebook 05, and its slider answers to mouse and keyboard."""

import io
import json
import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from pradot.paper.datasets import find_root
from pradot.paper.notebooks import project_root

pytestmark = pytest.mark.browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
SCREENSHOTS = Path(__file__).parent.parent / "build" / "browser"
SMALL = {"alphas": [0.0, 0.3], "max_steps": 6, "n_shown": 3}
"""Parameters of notebook 05 for a run of a minute or two."""
MINUTE = 60_000  # Playwright counts in milliseconds


@pytest.fixture(scope="module")
def playwright():
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH (Debian: sudo apt install chromium; Ubuntu: sudo snap install chromium)")
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install -e '.[browser]'")
    with sync_api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A JupyterLab on loopback with a token of its own, in a folder with a short notebook 05: its address and token."""
    folder = tmp_path_factory.mktemp("lab")
    notebook = nbformat.read(project_root() / "notebooks" / "05_alpha.ipynb", as_version=4)
    parameters = next(cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    # This run's pictures are not those that the project keeps: none is saved.
    parameters.source += "".join(f"\n{name} = {value!r}" for name, value in SMALL.items())
    parameters.source += "\nimport pradot.paper.figures\n\npradot.paper.figures.save_figure = lambda *_: None"
    nbformat.write(notebook, folder / "05_alpha.ipynb")

    find_root("drawn", None, project=project_root())  # drawn once, before the browser waits for it
    token, runtime = secrets.token_hex(16), folder / "runtime"
    environment = os.environ | {"JUPYTER_RUNTIME_DIR": str(runtime), "JUPYTER_CONFIG_DIR": str(folder / "config")}
    # All cells are drawn at once, not only those near the window.
    settings = folder / "settings" / "@jupyterlab"
    _write_json(settings / "notebook-extension" / "tracker.jupyterlab-settings", {"windowingMode": "none"})
    quiet = {"fetchNews": "false", "checkForUpdates": False}  # nothing is asked of the network
    _write_json(settings / "apputils-extension" / "notification.jupyterlab-settings", quiet)
    environment |= {"JUPYTERLAB_SETTINGS_DIR": str(folder / "settings")}
    environment |= {"OMP_WAIT_POLICY": "passive", "JUPYTER_TOKEN": token}  # by the environment: others see command lines
    environment.pop("PRADOT_HEADLESS", None)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", "--port=0", f"--notebook-dir={folder}"]
    if os.name == "posix" and os.geteuid() == 0:
        command.append("--allow-root")
    with open(folder / "lab.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield _address(server, runtime, folder / "lab.log"), token
    finally:
        server.terminate()
        server.wait(30)


def _write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _address(server, runtime, log):
    """Where the server listens, once it answers."""
    for _ in range(600):
        if server.poll() is not None:
            break
        for file in runtime.glob("jpserver-*.json"):
            try:
                address = json.loads(file.read_text())["url"]
                urllib.request.urlopen(f"{address}api", timeout=5).close()
            except (OSError, ValueError):
                continue
            return address
        time.sleep(0.2)
    pytest.fail(f"JupyterLab did not start: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def page(playwright, lab):
    """Notebook 05 in JupyterLab after all its cells ran."""
    address, token = lab
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    # Chromium refuses to be sandboxed as root.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
    page = browser.new_page(viewport={"width": 1360, "height": 900})
    try:
        page.goto(f"{address}lab/tree/05_alpha.ipynb?token={token}", timeout=3 * MINUTE)
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=3 * MINUTE)
        page.get_by_text("| Idle").first.wait_for(timeout=3 * MINUTE)  # a kernel that starts yet is asked for by a dialog
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
        _when_run(page)
        page.wait_for_function("document.body.innerText.split('from a move of the slider').length == 3", timeout=MINUTE)
        times = page.locator("pre", has_text="from a move of the slider").all_inner_texts()
        (SCREENSHOTS / "times.txt").write_text("\n".join(times))
        yield page
    finally:
        page.screenshot(path=SCREENSHOTS / "running.png")
        browser.close()


def _when_run(page):
    """Wait for the explorers of thresholds and alpha; fail at once where a cell failed."""
    for second in range(900):
        if page.locator("img.widget-image").count() == 2:
            return
        failed = page.locator("[data-mime-type='application/vnd.jupyter.error']")
        assert failed.count() == 0, failed.first.inner_text()
        if second % 15 == 0:
            page.screenshot(path=SCREENSHOTS / "running.png")  # to look at while one waits
        page.wait_for_timeout(1000)
    pytest.fail("notebook 05 did not come to its explorers within 15 minutes")


class Seen:
    """An explorer as somebody sees it who has a mouse and a keyboard."""

    def __init__(self, page, label):
        self.page = page
        self.box = page.locator(".widget-vbox").filter(has_text=label)
        self.handle = self.box.locator(".noUi-handle").first
        self.readout = self.box.locator(".widget-readout").first
        self.image = self.box.locator("img.widget-image")
        self.image.scroll_into_view_if_needed()

    def pixels(self, name=None):
        """The picture on the screen, (height, width, 3); kept as a screenshot if it has a name."""
        path = None if name is None else SCREENSHOTS / f"{name}.png"
        shot = Image.open(io.BytesIO(self.image.screenshot(path=path)))
        return np.asarray(shot.convert("RGB")).astype(int)

    def after(self, act):
        """The picture once it has changed and come to rest; the old one if it has not within a minute."""
        before, last = self.pixels(), None
        act()
        for _ in range(200):
            self.page.wait_for_timeout(300)
            now = self.pixels()
            if last is not None and (now == last).all() and (now != before).any():
                break
            last = now
        return now


@pytest.mark.parametrize(("label", "name"), [("alpha (0:", "alpha"), ("threshold (unit", "threshold")])
def test_the_picture_answers_to_mouse_and_keyboard(page, label, name):
    explorer = Seen(page, label)
    start = explorer.pixels(f"{name}-1-start")
    assert start.std() > 20  # a picture, no empty frame

    def drag():
        """By the mouse, to four fifths of the slider."""
        explorer.handle.hover()
        page.mouse.down()
        track = explorer.box.locator(".noUi-target").first.bounding_box()
        page.mouse.move(track["x"] + 0.8 * track["width"], track["y"] + track["height"] / 2, steps=8)
        page.mouse.up()

    text = explorer.readout.inner_text()
    by_mouse = explorer.after(drag)
    explorer.pixels(f"{name}-2-mouse")
    assert (by_mouse != start).any(2).mean() > 0.01  # of the pixels
    assert explorer.readout.inner_text() != text

    explorer.handle.focus()
    text = explorer.readout.inner_text()
    by_keyboard = explorer.after(lambda: [page.keyboard.press("ArrowLeft") for _ in range(40)])
    explorer.pixels(f"{name}-3-keyboard")
    assert (by_keyboard != by_mouse).any(2).mean() > 0.01
    assert explorer.readout.inner_text() != text
    back = explorer.after(lambda: [page.keyboard.press("ArrowRight") for _ in range(40)])
    np.testing.assert_array_equal(back, by_mouse)  # the same value, the same picture
    page.screenshot(path=SCREENSHOTS / f"{name}-4-page.png")


def test_every_control_works_by_the_keyboard(page):
    explorer = Seen(page, "alpha (0:")
    buttons = explorer.box.locator("button")
    buttons.first.focus()
    reached = []
    for _ in range(buttons.count() + 3):  # and the slider, its number, the box for the arrows
        reached.append(page.evaluate("document.activeElement.type || document.activeElement.className"))
        page.keyboard.press("Tab")
    assert reached.count("button") + reached.count("submit") == buttons.count(), reached
    assert any("noUi-handle" in element for element in reached) and "checkbox" in reached, reached

    explorer.box.locator("input[type=checkbox]").focus()
    start = explorer.pixels()
    without = explorer.after(lambda: page.keyboard.press("Space"))
    explorer.pixels("alpha-5-without-arrows")
    assert (without != start).any(2).mean() > 0.01
    buttons.nth(1).focus()
    other = explorer.after(lambda: page.keyboard.press("Space"))
    explorer.pixels("alpha-6-other-image")
    assert (other != without).any(2).mean() > 0.05
    buttons.last.focus()
    coarse = explorer.after(lambda: page.keyboard.press("Space"))
    explorer.pixels("alpha-7-other-scale")
    assert (coarse != other).any(2).mean() > 0.05
