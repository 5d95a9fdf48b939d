"""How Sphinx builds the site: `make docs`."""

import contextlib
import io
import os
import re
from unittest import mock

from docutils import nodes
from docutils.parsers.rst import Directive

import safemesa
from safemesa.cli.main import main

project = "safemesa"
author = "The safemesa authors"
copyright = author
release = version = safemesa.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

# GitHub's rules for the names of headings, so that links work there and here.
myst_heading_anchors = 4
myst_enable_extensions = ["dollarmath"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_default_options = {"members": True, "exclude-members": "__init__, __new__"}
# Signatures name types of other libraries and of our inner modules, which have no page; docstrings
# name errors without their module.
nitpick_ignore_regex = [(r"py:(class|exc)", r".*")]

html_theme = "furo"
html_title = f"safemesa {release}"


class HelpText(Directive):
    """`{safemesa-help} VERB`: what `safemesa VERB --help` prints."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        """Asks the program itself, so that the page cannot disagree with it."""
        words = self.arguments[0].split()
        printed = io.StringIO()
        plain = {"COLUMNS": "88", "NO_COLOR": "1", "TERM": "dumb"}
        with mock.patch.dict(os.environ, plain), contextlib.redirect_stdout(printed):
            try:
                main([*words, "--help"])
            except SystemExit as stop:
                if stop.code:
                    raise self.error(f"safemesa {self.arguments[0]} --help failed") from stop
        text = printed.getvalue()
        return [nodes.literal_block(text, text, language="text")]


def link_to_files(app, name: str, source: list[str]) -> None:
    """Pages link to Markdown files outside of docs/, which are files here and no pages."""
    del app, name
    source[0] = re.sub(r"\]\((\.\./[^)#]+\.md)[^)]*\)", r"](path:\1)", source[0])


def setup(app) -> None:
    """Called by Sphinx."""
    app.connect("source-read", link_to_files)
    app.add_directive("safemesa-help", HelpText)
