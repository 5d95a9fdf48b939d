"""HTML without a dependency: every function escapes its text and returns safe markup."""

import base64
import html
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from string import Template
from typing import NewType

from safemesa.pages.tables import Cell, Table

Html = NewType("Html", str)
"""Markup in which everything from outside is escaped."""


def escaped(text: str) -> Html:
    """Text as markup."""
    return Html(html.escape(text, quote=True))


def slug(text: str) -> str:
    """A name for anchors and files: lower case, digits and dashes."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "unnamed"


def heading(level: int, text: str) -> Html:
    """A heading that `contents` can link to."""
    return Html(f'<h{level} id="{slug(text)}">{escaped(text)}</h{level}>')


def paragraph(text: str, kind: str = "") -> Html:
    """A paragraph; `kind` is `soft`, `note` or nothing."""
    attribute = f' class="{escaped(kind)}"' if kind else ""
    return Html(f"<p{attribute}>{escaped(text)}</p>")


def bullets(items: Iterable[str]) -> Html:
    """A list of texts."""
    return Html("<ul>" + "".join(f"<li>{escaped(item)}</li>" for item in items) + "</ul>")


def contents(titles: Iterable[str]) -> Html:
    """Links to headings of these texts."""
    links = (f'<a href="#{slug(title)}">{escaped(title)}</a>' for title in titles)
    return Html('<nav class="soft">' + " · ".join(links) + "</nav>")


def folded(title: str, parts: Iterable[Html]) -> Html:
    """What is shown when the title is clicked."""
    return Html(f"<details><summary>{escaped(title)}</summary>" + "\n".join(parts) + "</details>")


def code(lines: Iterable[str]) -> Html:
    """Commands or file contents, one per line."""
    return Html("<pre><code>" + escaped("\n".join(lines)) + "</code></pre>")


def table(content: Table) -> Html:
    """A table that scrolls sideways on a narrow screen."""
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in content.header)
    body = "".join(_row(row) for row in content.rows)
    return Html(
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        "</div>"
    )


def _row(cells: Sequence[Cell]) -> str:
    first, *others = cells
    rest = "".join(f"<td{_width(cell)}>{_content(cell)}</td>" for cell in others)
    return f'<tr><th scope="row">{_content(first)}</th>{rest}</tr>\n'


def _width(cell: Cell) -> str:
    """Sentences want wider columns than numbers."""
    return ' class="long"' if len(cell.text) > 24 else ""


def _content(cell: Cell) -> str:
    return escaped(cell.text) + "".join(f"<small>{escaped(line)}</small>" for line in cell.details)


def picture(png: bytes, alternative: str, caption: str) -> Html:
    """A PNG inside the page, with what it shows in words."""
    data = base64.b64encode(png).decode("ascii")
    return Html(
        f'<figure><div class="scroll"><img class="wide" alt="{escaped(alternative)}" '
        f'src="data:image/png;base64,{data}"></div>'
        f"<figcaption>{escaped(caption)}</figcaption></figure>"
    )


def row_of(parts: Iterable[Html]) -> Html:
    """Things beside each other, as many as fit."""
    return Html('<div class="row">' + "".join(parts) + "</div>")


def key_numbers(items: Iterable[tuple[str, str]]) -> Html:
    """Large numbers, each with what it is."""
    boxes = (f"<div><b>{escaped(value)}</b>{escaped(name)}</div>" for value, name in items)
    return Html('<div class="numbers">' + "".join(boxes) + "</div>")


def page(title: str, parts: Iterable[Html]) -> str:
    """A whole document that needs no other file."""
    source = resources.files("safemesa.pages").joinpath("page.html")
    template = Template(source.read_text(encoding="utf-8"))
    return template.substitute(title=escaped(title), body="\n".join(parts))
