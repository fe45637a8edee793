import io
import sys

import pytest

from pradot.progress import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def use(bar):
    with bar:
        for _ in range(3):
            bar.update()
        bar.refresh()


@pytest.mark.parametrize(("headless", "stream"), [("", "stderr"), ("1", "__stderr__")])
def test_bar_goes_to_the_terminal(monkeypatch, headless, stream):
    monkeypatch.setenv("PRADOT_HEADLESS", headless)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # as in a plain terminal
    written = {name: Terminal() for name in ("stderr", "__stderr__")}
    for name, terminal in written.items():
        monkeypatch.setattr(sys, name, terminal)
    use(progress_bar(3, "fitting", "step"))
    texts = {name: terminal.getvalue() for name, terminal in written.items()}
    assert "fitting" in texts.pop(stream) and not any(texts.values())


def test_no_bar_when_not_wanted(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    use(progress_bar(3, "fitting", "step", show=False))
    assert terminal.getvalue() == ""


def test_short_work_shows_no_bar(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)
    with progress_bar(3, "fitting", "step") as bar:
        for _ in range(3):
            bar.update()
    assert "fitting" not in terminal.getvalue()
