"""How numbers and tables are written, in all pages, plots and on the terminal."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping, Sequence

from mer_bench.report.statistics import Attained, Difference, Floats


def spread(scores: Floats) -> str:
    """Mean ± standard deviation (n - 1) of scores, in percent; one score alone has no deviation."""
    mean = f"{100 * scores.mean():.2f}"
    return f"{mean} ± {100 * scores.std(ddof=1):.2f}" if len(scores) > 1 else mean


def points(share: float, sign: str = "") -> str:
    """A score or a difference of scores in points; ``sign="+"`` writes the sign of positive ones too."""
    return f"{100 * share:{sign}.1f}"


def between(low: float, high: float, sign: str = "") -> str:
    """An interval in points."""
    return f"{points(low, sign)} to {points(high, sign)}"


def in_percent(share: float) -> str:
    """A share as a whole number of percent."""
    return f"{100 * share:z.0f}"


def with_interval(found: Attained) -> str:
    """A share with its interval, in whole percent."""
    return f"{in_percent(found.share)} ({in_percent(found.low)} to {in_percent(found.high)})"


def effect(found: Difference, sign: str = "") -> str:
    """A difference with its interval, in points."""
    return f"{points(found.effect, sign)} ({between(found.low, found.high, sign)})"


def probability(p: float) -> str:
    """A p-value as a number; small ones are never written as zero."""
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def p_value(p: float) -> str:
    """A p-value in a sentence: ``p = 0.012`` or ``p < 0.001``."""
    written = probability(p)
    return f"p {written}" if written.startswith("<") else f"p = {written}"


def percent(share: float | None) -> str:
    """A share in percent; a dash where it is not known."""
    return "–" if share is None else f"{100 * share:.0f} %"


def value(setting: object) -> str:
    """The value of an option; numbers without trailing zeros."""
    return f"{setting:g}" if isinstance(setting, int | float) else str(setting)


def settings(named: Mapping[str, object]) -> str:
    """Options and their values: ``epochs 30, batch size 32``."""
    return ", ".join(f"{name.replace('_', ' ')} {value(each)}" for name, each in named.items())


def pad(rows: Sequence[Sequence[str]], align: str) -> list[list[str]]:
    """Cells padded to the width of their column; ``align`` has ``<`` (left) or ``>`` (right) per column."""
    columns = [(side, max(map(len, cells))) for side, cells in zip(align, zip(*rows, strict=True), strict=True)]
    return [[f"{cell:{side}{width}}" for cell, (side, width) in zip(row, columns, strict=True)] for row in rows]


def plain(rows: Sequence[Sequence[str]], align: str) -> str:
    """An aligned table of plain text for the terminal."""
    return "\n".join("  ".join(row).rstrip() for row in pad(rows, align))


def markdown(rows: Sequence[Sequence[str]], align: str) -> str:
    """A Markdown table whose first row is the header; columns are aligned in the source too."""
    head, *body = pad([[cell.replace("|", "\\|") for cell in row] for row in rows], align)
    rule = [f"{':' if side == '>' else '-':->{len(cell)}}" for cell, side in zip(head, align, strict=True)]
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, rule, *body))


def escape(text: str) -> str:
    """Text that Markdown shows as it is; in a table :func:`markdown` takes care of ``|``."""
    text = re.sub(r"([\\`*\[\]~#])|(?<![^\W_])_|_(?![^\W_])", lambda found: f"\\{found[0]}", text)
    return text.replace("<", "&lt;")


def unescape(text: str) -> str:
    """What :func:`escape` was given, for pages that are not Markdown."""
    return re.sub(r"\\([\\`*\[\]~#_])", r"\1", text.replace("&lt;", "<"))


def csv_table(rows: Sequence[Sequence[str]]) -> str:
    """Comma-separated values; the first row is the header."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


#: what LaTeX prints otherwise, or not at all -> how it is written
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", "±": r"$\pm$", "≈": r"$\approx$", "°": r"$^\circ$", "†": r"$\dagger$", "‡": r"$\ddagger$",
    "◇": r"$\diamond$", "▷": r"$\triangleright$", "§": r"\S{}", "–": "--", "−": "$-$",
}  # fmt: skip


def latex(rows: Sequence[Sequence[str]], align: str) -> str:
    """A LaTeX ``tabular`` whose first row is the header; needs the package booktabs.

    Cells are Markdown. Characters that :func:`escape` escaped are printed as they are, and so are the special ones of
    LaTeX. Backticks become typewriter text, an asterisk on each side of a cell makes italics, two make bold type.
    """
    head, *body = [" & ".join(map(_latex, row)) + r" \\" for row in rows]
    columns = align.translate({ord("<"): "l", ord(">"): "r"})
    start, end = rf"\begin{{tabular}}{{{columns}}}", r"\end{tabular}"
    return "\n".join([start, r"\toprule", head, r"\midrule", *body, r"\bottomrule", end]) + "\n"


def _latex(cell: str) -> str:
    start = 0xE000  # of a private area of Unicode, in which escaped characters wait until the marks are replaced
    text = re.sub(r"\\([\\`*\[\]~#_])", lambda found: chr(start + ord(found[1])), cell.replace("&lt;", "<"))
    text = "".join(LATEX.get(character, character) for character in text)
    text = re.sub(r"`([^`]*)`", r"\\texttt{\1}", text)
    text = re.sub(r"^\*\*(.*)\*\*$", r"\\textbf{\1}", text)
    text = re.sub(r"^\*(.*)\*$", r"\\textit{\1}", text)
    return re.sub("[\ue000-\ue07f]", lambda found: LATEX.get(c := chr(ord(found[0]) - start), c), text)
