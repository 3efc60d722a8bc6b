"""Docstrings and the comments of fields as Markdown."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from functools import cache

MATH = re.compile(r"^\.\. math::(?P<first>.*)\n(?P<more>(?:(?:[ \t]+.*)?\n)*)", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")
ROLE = re.compile(r":\w+:`~?([^`]+)`")
ADDRESS = re.compile(r"(?<!<)(?<!\]\()\bhttps?://[^\s,;)>]+(?<![.])")
TABLE = re.compile(r"^=+ =+\n(?:.*\n)*?=+ =+\n(?:(?!=).*\n)+=+ =+$\n?", re.MULTILINE)
SECTIONS = re.compile(r"^(?:Args|Shapes|Attributes|Returns|Raises|Example|Note)s?:\n", re.MULTILINE)


def to_markdown(docstring: str) -> str:
    """The description in a docstring, without its sections (Args, Shapes ...), as Markdown with formulas."""
    text = inspect.cleandoc(docstring)
    text = SECTIONS.split(text, maxsplit=1)[0].rstrip() + "\n"
    return re.sub(r"\n{3,}", "\n\n", to_markdown_inline(text)).strip() + "\n"


def to_markdown_inline(text: str) -> str:
    """Text of a docstring with its sections, in which formulas, roles and addresses are those of Markdown."""
    text = MATH.sub(_formula, text)
    parts = re.split(r"(```math\n.*?```\n)", text, flags=re.DOTALL)
    parts[::2] = [_prose(part) for part in parts[::2]]
    return "".join(parts)


def tables(text: str) -> str:
    """Tables between lines of ``=`` become those of Markdown; a line that begins with a space continues the last."""
    return TABLE.sub(_table, text)


def _table(found: re.Match[str]) -> str:
    border, *_ = found[0].strip().splitlines()
    start = border.index(" ") + 1
    rows: list[list[str]] = []
    for line in found[0].strip().splitlines():
        if line.startswith("="):
            continue
        first, second = line[:start].strip(), line[start:].strip()
        if first:
            rows.append([first, second])
        else:
            rows[-1][1] += f" {second}"
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "| --- | --- |", *lines[1:]]) + "\n"


def _formula(found: re.Match[str]) -> str:
    lines = [found["first"].strip(), *map(str.strip, found["more"].splitlines())]
    if any("&" in line or line.endswith("\\\\") for line in lines):
        lines = [r"\begin{aligned}", *lines, r"\end{aligned}"]
    return "\n```math\n" + "\n".join(filter(None, lines)) + "\n```\n\n"


def _prose(text: str) -> str:
    text = INLINE.sub(r"$\1$", text.replace("``", "`"))
    return ADDRESS.sub(r"<\g<0>>", ROLE.sub(r"`\1`", text))


@cache
def comments(kind: type) -> dict[str, str]:
    """Field of a dataclass -> its ``#:`` comment: the lines above it, or what follows on its line and the next."""
    return comments_in(inspect.getsource(kind))


def comments_in(source: str) -> dict[str, str]:
    """The comments of the fields of the class whose source this is."""
    lines = textwrap.dedent(source).splitlines()
    (definition,) = ast.parse("\n".join(lines)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for node in definition.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            above, line = node.lineno - 2, lines[(node.end_lineno or node.lineno) - 1]
            said: list[str] = []
            while lines[above].strip().startswith("#"):
                said.insert(0, lines[above].strip().lstrip("#: "))
                above -= 1
            inside = "\n".join(lines[node.lineno - 1 : node.end_lineno])
            _, mark, after = (line if "#:" in line else inside).partition("#:")
            found[node.target.id] = " ".join([*said, *([after.split("\n")[0].strip()] if mark else [])])
    return found


def sentence(text: str) -> str:
    """A comment as a sentence of a page."""
    text = _prose(text).replace("->", "→").strip()
    return (text[:1].upper() + text[1:]).rstrip(".") + "." if text else ""


def first_line(item: Callable[..., object] | type) -> str:
    """The first line of a docstring."""
    return inspect.cleandoc(item.__doc__ or "").split("\n")[0]
