"""What all explorers have in common: controls, a picture that answers them, and how long the answer takes."""

import io
import time
from abc import ABC, abstractmethod

import ipywidgets
import numpy as np
import torch
from IPython.display import display
from PIL import Image

from pradot.paper.notebooks import is_headless

LIMIT = 0.1
"""From a move of a slider to the new picture, seconds: below it an answer feels immediate."""


class Explorer(ABC):
    """Pictures that depend on a few settings, shown with a control for each.

    A subclass says what the settings are (`controls`), draws the picture (`picture`) and says its numbers in words
    (`readout`).

    Attributes
    ----------
    settings : dict
        The values to begin with, by name.
    slider : str
        The setting whose answer is measured.
    moves : sequence
        Values of it to measure with.
    """

    settings: dict
    slider: str
    moves: tuple

    @abstractmethod
    def controls(self):
        """New widgets, a dict by setting; each with its label, unit and the value to begin with."""

    @abstractmethod
    def picture(self, **settings):
        """The whole view at these settings (others as `settings` has them), ndarray (height, width, 3), uint8."""

    @abstractmethod
    def readout(self, **settings):
        """The numbers of the view in one line of HTML."""

    def widget(self):
        """Controls over the picture, as an ``ipywidgets.VBox``; its attributes are ``controls``, ``image`` and ``text``."""
        controls = self.controls()
        image, text = ipywidgets.Image(format="png"), ipywidgets.HTML()
        image.layout.max_width = "100%"
        image.layout.object_fit = "contain"

        def update(change=None):
            settings = {name: control.value for name, control in controls.items()}
            image.value, text.value = png(self.picture(**settings)), self.readout(**settings)

        for control in controls.values():
            control.observe(update, names="value")
        update()
        row = ipywidgets.HBox(list(controls.values()), layout=ipywidgets.Layout(flex_flow="row wrap", align_items="center"))
        box = ipywidgets.VBox([row, text, image])
        box.controls, box.image, box.text = controls, image, text
        return box

    def answer_times(self, widget=None):
        """Seconds from a move of the slider to the new picture, for each of `moves`.

        Parameters
        ----------
        widget : ipywidgets.VBox, optional
            Of `widget`: its slider is moved, and the time includes handing the picture to the browser's connection. None:
            the time to compute the picture and its PNG.

        Returns
        -------
        ndarray of shape (n_moves,)
        """
        seconds = []
        control = None if widget is None else widget.controls[self.slider]
        start_value = self.settings[self.slider]
        for value in self.moves:
            start = time.perf_counter()
            if control is None:
                png(self.picture(**{self.slider: value})), self.readout(**{self.slider: value})
            else:
                control.value = value
            seconds.append(time.perf_counter() - start)
        if control is not None:
            control.value = start_value
        return np.array(seconds)

    def show(self):
        """Show the widget where somebody can move it, else say where it would be; print how long an answer takes."""
        widget = None
        if is_headless():
            print("Opened in JupyterLab, this cell shows an explorer with a slider; the strip above shows its views.")
        else:
            widget = self.widget()
            display(widget)
        start = time.process_time()
        times = 1000 * self.answer_times(widget)
        used = 1000 * (time.process_time() - start) / len(times)  # where others share the cores it is less than the median
        print(
            f"from a move of the slider to the new picture: median {np.median(times):.0f} ms, slowest {times.max():.0f} ms of "
            f"{len(times)} moves (wanted: below {1000 * LIMIT:.0f} ms)\nprocessor time {used:.0f} ms a move, "
            f"{torch.get_num_threads()} threads"
        )


def png(picture):
    """PNG bytes of a picture (height, width, 3), uint8."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", compress_level=1)
    return buffer.getvalue()


def buttons(label, options, value):
    """One button for each option. JupyterLab takes the arrow keys away from drop-down lists, not Tab and space from buttons."""
    style, layout = {"button_width": "auto", "description_width": "60px"}, ipywidgets.Layout(width="auto", overflow="visible")
    return ipywidgets.ToggleButtons(options=options, value=value, description=label, style=style, layout=layout)
