"""Small pieces of HTML. Every text is escaped here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


class Cell(NamedTuple):
    """A table cell with a class of the style sheet."""

    content: str
    style: str


def text(content: object) -> Markup:
    """Return `content` as HTML."""
    return content if isinstance(content, Markup) else Markup(escape(str(content)))


def number(value: int | str) -> Cell:
    """Return a right-aligned cell; whole numbers with thin spaces between thousands."""
    return Cell(f"{value:,}".replace(",", "\u202f") if isinstance(value, int) else value, "number")


def code(content: str) -> Markup:
    """Return inline code."""
    return Markup(f"<code>{escape(content)}</code>")


def section(name: str, heading: str, *content: str) -> Markup:
    """Return a section that the navigation can reach."""
    return Markup(
        f'<section id="{name}" aria-labelledby="{name}-heading"><h2 id="{name}-heading">{escape(heading)}</h2>'
        + "".join(content)
        + "</section>"
    )


def paragraph(content: str, style: str = "") -> Markup:
    """Return a paragraph."""
    return Markup(f"<p{_class(style)}>{text(content)}</p>")


def facts(rows: Iterable[tuple[str, str]]) -> Markup:
    """Return a description list; long values span the page on a phone."""
    items = "".join(
        f"<div{_class('broad' if len(value) > 24 else '')}><dt>{text(name)}</dt><dd>{text(value)}</dd></div>"
        for name, value in rows
    )
    return Markup(f"<dl>{items}</dl>")


def table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[str | Cell]]) -> Markup:
    """Return a table in a region that the keyboard can scroll; the first cell of a row is its heading."""
    body = "".join(_row(headings, row) for row in rows)
    numeric = _numeric_columns(rows)
    head = "".join(
        f'<th scope="col"{_class("number" if column in numeric else "")}>{text(heading)}</th>'
        for column, heading in enumerate(headings)
    )
    return Markup(
        f'<div class="wide" role="region" tabindex="0" aria-label="{escape(caption)}"><table class="stacked">'
        f"<caption>{text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _numeric_columns(rows: Iterable[Sequence[str | Cell]]) -> set[int]:
    return {
        column for row in rows for column, cell in enumerate(row) if isinstance(cell, Cell) and cell.style == "number"
    }


def _row(headings: Sequence[str], row: Sequence[str | Cell]) -> str:
    first, *others = row
    cells = "".join(_cell(heading, cell) for heading, cell in zip(headings[1:], others, strict=True))
    return f'<tr><th scope="row">{text(_content(first))}</th>{cells}</tr>'


def _cell(heading: str, cell: str | Cell) -> str:
    style = cell.style if isinstance(cell, Cell) else ""
    return f'<td{_class(style)} data-label="{escape(heading)}">{text(_content(cell))}</td>'


def _content(cell: str | Cell) -> str:
    return cell.content if isinstance(cell, Cell) else cell


def _class(style: str) -> str:
    return f' class="{style}"' if style else ""
