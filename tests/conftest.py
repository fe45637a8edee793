"""What several test files share: encoders, drawn images, a fitted detector, folders, commands in processes, no hub."""

import signal
from dataclasses import replace

import huggingface_hub
import numpy as np
import pytest
import timm
import torch
from commands import Starter
from hypothesis import settings
from small_data import QUICK_FIT, write_category, write_encoder
from small_problems import feature_maps
from small_runs import FAST
from work import N_IMAGES, NAMES, SLOW, Undisturbed

from pradot import Encoder, Pradot
from pradot.network import HUB_SWITCH, SWITCH
from pradot.paper.presets import PRESETS
from pradot.paper.runs import run

# Started in the background, as some shells do it, a process and all that it starts ignore Ctrl-C: tests would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# The arrays of the tests are small: on a busy machine threads wait for each other ten times longer than they work.
torch.set_num_threads(1)

# The same examples everywhere, in seconds; `pytest --hypothesis-profile thorough` looks at others, in minutes.
settings.register_profile("repeatable", max_examples=25, derandomize=True, deadline=None, database=None)
settings.register_profile("thorough", max_examples=300, deadline=None, database=None)
settings.load_profile("repeatable")


STARTER = pytest.StashKey()


@pytest.fixture(autouse=True)
def no_data_of_the_user(monkeypatch):
    """Tests draw their own data: none is looked for where the user keeps real ones."""
    monkeypatch.delenv("PRADOT_DATA", raising=False)


@pytest.fixture
def no_switch(monkeypatch):
    """Nothing in the environment forbids the network."""
    monkeypatch.delenv(SWITCH, raising=False)
    monkeypatch.delenv(HUB_SWITCH, raising=False)


@pytest.fixture
def features():
    """Feature maps of six images of a kind."""
    return feature_maps()


class TwoScales(torch.nn.Module):
    """Random convolutions: maps of stride 8 (scale 2, 6 channels) and stride 16 (scale 3, 10 channels)."""

    def __init__(self, seed=0, **convolution):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.fine = torch.nn.Conv2d(3, 6, 8, stride=8, **convolution)
            self.coarse = torch.nn.Conv2d(6, 10, 2, stride=2)

    def forward(self, x):
        fine = self.fine(x).relu()
        return [fine, self.coarse(fine).relu()]


@pytest.fixture(scope="session")
def two_scales():
    return TwoScales


@pytest.fixture(scope="session")
def tiny_encoder():
    return Encoder.from_module(TwoScales(), "two_scales", image_size=64)


def draw_images(n, seed, shape=(64, 64)):
    """Stripes in random colours with noise, uint8."""
    rng = np.random.default_rng(seed)
    stripes = np.sin(np.arange(shape[1]) / 4)[:, None]
    images = [140 + 50 * stripes * rng.uniform(0.5, 1, 3) + rng.normal(0, 8, (*shape, 3)) for _ in range(n)]
    return [image.clip(0, 255).astype(np.uint8) for image in images]


@pytest.fixture(scope="session")
def draw():
    return draw_images


@pytest.fixture(scope="session")
def fitted(tiny_encoder, draw):
    """A detector that no test changes."""
    return Pradot(tiny_encoder, **QUICK_FIT).fit(draw(10, 0))


@pytest.fixture(scope="module")
def few_prototypes():
    """Preset fast with few patches and one prototype each: the same way through the program in a fraction of the time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PRESETS, "fast", replace(PRESETS["fast"], image_size=64, n_prototypes=1))
        yield


def pytest_collection_finish(session):
    """Where a test starts commands, begin what they all start from, which takes seconds, beside the tests before it."""
    if not session.config.option.collectonly and any("starter" in item.fixturenames for item in session.items):
        session.config.stash[STARTER] = Starter()


def pytest_sessionfinish(session):
    if starter := session.config.stash.get(STARTER, None):
        starter.close()


@pytest.fixture(scope="session")
def starter(pytestconfig):
    """Starts commands in processes of their own."""
    return pytestconfig.stash[STARTER]


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A category whose runs are compared; files of tests with other needs have data, encoders and runs of their own."""
    root = tmp_path_factory.mktemp("data")
    write_category(root, n_train=8, n_good=8, n_bad=8)
    return root


@pytest.fixture(scope="session")
def spec(tmp_path_factory):
    """What --encoder takes."""
    return write_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="session")
def encoder(spec):
    """The encoder of that name."""
    return Encoder(spec, image_size=64)


@pytest.fixture(scope="session")
def finished(data, encoder, tmp_path_factory):
    """The record of a run that no test changes."""
    folder = tmp_path_factory.mktemp("finished")
    return run("mvtec_ad", data, "part", FAST, encoder, out=folder / "runs", model=folder / "model")[1]


@pytest.fixture(scope="session")
def place(tmp_path_factory):
    """A folder with data and an encoder."""
    place = tmp_path_factory.mktemp("place")
    for seed, name in enumerate(NAMES):
        write_category(place / "data", name, seed=seed, **N_IMAGES)
    (place / "slow.py").write_text(SLOW)
    return place


@pytest.fixture
def log(place):
    """The processes of the encoder's passes in this test."""
    path = place / "slow.log"
    path.unlink(missing_ok=True)
    return lambda: [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.fixture(scope="session")
def undisturbed(starter, place, tmp_path_factory):
    """What each kind of work leaves, see `work.Undisturbed`."""
    return Undisturbed(starter, place, tmp_path_factory)


@pytest.fixture
def threads():
    """Sets torch's threads for a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty current folder, with features cached in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRADOT_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def part(here):
    """A category of a few images with masks."""
    return write_category(here, "part", n_train=3, n_good=2, n_bad=2)


@pytest.fixture
def no_hub(monkeypatch):
    """Nothing was downloaded before, and every question to the hub fails as it does without a network."""

    def refuse(*args, **kwargs):
        raise OSError("no way to the hub")

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *args, **kwargs: None)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(timm.models._hub, "hf_hub_download", refuse)
    monkeypatch.delenv("PRADOT_AUTO_NOTE", raising=False)
