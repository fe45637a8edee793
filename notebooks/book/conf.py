"""Sphinx's settings for the HTML book; `build.py` lays out its sources and calls Sphinx."""

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # this project's pradot, whichever is installed

import pradot

project = "PRADOT companion"
author = "The PRADOT companion's contributors"
version = release = pradot.__version__
language = "en"

extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.mathjax", "numpydoc", "myst_nb"]
root_doc = "index"
templates_path = [str(HERE / "templates")]

# Notebooks are shown as they are: nothing is executed here, and there is no kernel behind a page that a widget could ask.
nb_execution_mode = "off"
nb_merge_streams = True
nb_ipywidgets_js = {}
myst_enable_extensions = ["amsmath", "dollarmath"]
myst_heading_anchors = 3

# Formulas as SVG: one file of MathJax, without fonts, so that they show without network and from a folder on disk.
_mathjax = Path(importlib.util.find_spec("sphinx-mathjax-offline").origin).parent / "static" / "mathjax" / "tex-svg.js"
mathjax_path = _mathjax.name

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
numpydoc_show_class_members = False
toc_object_entries_show_parents = "hide"
default_role = "py:obj"  # `sinkhorn` in a docstring is a link if there is something of this name

html_theme = "pydata_sphinx_theme"
html_title = f"PRADOT {release}"
html_static_path = [str(HERE / "static"), str(_mathjax)]
html_css_files = ["book.css"]
html_show_sourcelink = False
html_copy_source = False
html_context = {"default_mode": "auto"}
html_theme_options = {
    "logo": {"text": "PRADOT"},
    "navbar_end": ["theme-switcher"],
    "navigation_with_keys": False,
    "secondary_sidebar_items": ["page-toc"],
    "show_toc_level": 2,
    "footer_start": ["copyright"],
    "footer_end": ["sphinx-version"],
}
copyright = author


def skip_foreign(app, what, name, obj, skip, options):
    """Leave out members that are not ours: numbered fields of named tuples, scikit-learn's requests for metadata."""
    foreign = str(getattr(obj, "__doc__", "")).startswith("Alias for field number") or name.endswith("_request")
    return True if foreign else skip


def find_by_short_name(app, env, node, contnode):
    """Link `PrototypeLearner` or `Encoder.features` from any module, if a single object has this name."""
    target, domain = node.get("reftarget", ""), env.get_domain("py")
    names = [name for name, entry in domain.objects.items() if name.endswith(f".{target}") and not entry.aliased]
    if len(names) != 1 or ("." not in target and domain.objects[names[0]].objtype not in ("class", "exception", "function")):
        return None
    return domain.resolve_xref(env, node["refdoc"], app.builder, "obj", names[0], node, contnode)


def setup(app):
    """Connect the functions above."""
    app.connect("autodoc-skip-member", skip_foreign)
    app.connect("missing-reference", find_by_short_name)
