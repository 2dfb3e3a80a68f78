"""How Sphinx builds the guide: make docs."""

from __future__ import annotations

import activation

project = "trio-activation"
author = "The trio-activation authors"
copyright = f"2026, {author}"  # noqa: A001
release = version = activation.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.intersphinx"]
exclude_patterns = ["README.md"]
myst_enable_extensions = ["colon_fence", "deflist", "fieldlist"]
myst_heading_anchors = 3

html_theme = "furo"
html_title = f"trio-activation {release}"

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False

nitpicky = False
