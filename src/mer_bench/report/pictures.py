"""The plots of :mod:`mer_bench.report.plots` as elements of the HTML page."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mer_bench.report import plots
from mer_bench.report.cache import NOT_KEPT, Cache
from mer_bench.report.tables import Table

if TYPE_CHECKING:
    from markupsafe import Markup


def draw(
    found: Sequence[Table], cache: Cache = NOT_KEPT, jobs: int = 1
) -> tuple[dict[str, list[tuple[str, Markup]]], list[tuple[str, Markup]]]:
    """The plots of every table by its slug, and those of several tables; each plot with its caption.

    Raises:
        Misuse: matplotlib is not installed.
    """
    files = plots.draw(found, cache=cache, jobs=jobs)
    drawn = {name.removesuffix(".svg"): content.decode() for name, content in files.items()}
    by_table: dict[str, list[tuple[str, Markup]]] = {}
    for name in (plots.slug(table) for table in found):
        by_table[name] = []
        for kind, plot in plots.PLOTS.items():
            if f"{name}-{kind}" in drawn:
                caption = (plot.__doc__ or kind).splitlines()[0]
                by_table[name].append((caption, inline(drawn.pop(f"{name}-{kind}"), f"{name}-{kind}", caption)))
    return by_table, [(name, inline(svg, name, name)) for name, svg in sorted(drawn.items())]


def inline(svg: str, name: str, caption: str) -> Markup:
    """An SVG file as an element of the page, with unique ids, without header, comments, metadata and styles."""
    from markupsafe import Markup, escape

    svg = re.sub(r"(?s)<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :])
    prefix = hashlib.sha256(name.encode()).hexdigest()[:8]
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>p{prefix}-", svg)
    svg = re.sub(r"\n\s*", "\n", svg)
    return Markup(svg.replace("<svg", f'<svg role="img" aria-label="{escape(caption)}"', 1))
