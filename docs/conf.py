"""How Sphinx builds the site out of these pages and the docstrings."""

from typing import Any, Optional, Tuple

from docutils import nodes
from sphinx.application import Sphinx

from snowplow_tracker import __version__

project = "snowplow-tracker"
author = "Snowplow"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["conf.py"]

html_theme = "furo"
html_title = f"{project} {release}"
html_copy_source = html_show_sourcelink = html_show_copyright = html_show_sphinx = False

myst_heading_anchors = 3

autodoc_class_signature = "mixed"
autodoc_inherit_docstrings = True
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
maximum_signature_line_length = 88
strip_signature_backslash = True
python_use_unqualified_type_names = True
# Annotations say how an attribute checks its values, which is nobody's business; the text says what it may be.
napoleon_attr_annotations = False

# In docstrings, single backticks are code, which leads to where that is described.
default_role = "py:obj"

# What is private in signatures, and what it stands for.
_SHOWN_AS = {
    "<factory>": "...",
    "snowplow_tracker.contracts._T": "typing.Any",
    "snowplow_tracker.testing._collected._TextPath": "os.PathLike",
}

nitpicky = True
# What other projects document. Their inventories would have to be fetched to build the site.
nitpick_ignore_regex = [("py:.*", r"(datetime|logging|os|queue|requests|threading|typing_extensions)\..*")]


def setup(app: Sphinx) -> None:
    """Have a say in what a signature shows, and in what becomes of names that nothing has."""
    app.connect("autodoc-process-signature", _with_public_names)
    app.connect("missing-reference", _as_plain_code)


def _with_public_names(
    _app: Sphinx,
    _kind: str,
    _name: str,
    _described: Any,
    _options: Any,
    signature: Optional[str],
    result: Optional[str],
) -> Tuple[Optional[str], Optional[str]]:
    for private, shown in _SHOWN_AS.items():
        signature = signature and signature.replace(private, shown)
        result = result and result.replace(private, shown)
    return signature, result


def _as_plain_code(_app: Sphinx, _env: Any, node: nodes.Element, text: nodes.TextElement) -> Optional[nodes.Node]:
    """Let code in single backticks be no more than that where it is the name of nothing that is described."""
    return text if node.get("reftype") == "obj" else None
