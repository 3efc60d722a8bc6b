"""Extension of griffe, which reads the sources for docs/api.md: docstrings as Markdown, ``#:`` comments of fields."""

from __future__ import annotations

from typing import Any

import griffe

from website.docstrings import comments_in, sentence, tables, to_markdown_inline


class Reading(griffe.Extension):
    """Make of the project's docstrings what Markdown shows well."""

    def on_object(self, *, obj: griffe.Object, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Turn tables and formulas of a docstring into those of Markdown."""
        if obj.docstring:
            obj.docstring.value = to_markdown_inline(tables(obj.docstring.value))

    def on_class(self, *, cls: griffe.Class, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Take the comments of fields as their docstrings."""
        for name, said in comments_in(cls.source).items():
            member = cls.members.get(name)
            if said and isinstance(member, griffe.Attribute) and not member.docstring:
                member.docstring = griffe.Docstring(sentence(said), parent=member)
