"""docs/suites.md: every key of a suite file, from the dataclasses that are its schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from msgspec import Meta

from mer_bench import suites
from mer_bench.records import KEPT, MEASURES, TRANSFER, Training
from mer_bench.report.formatting import markdown
from mer_bench.schema import PATTERNS, Option
from mer_bench.workspace import find_suite
from website.docstrings import comments, sentence

Row = tuple[str, str, str, str]
HEAD: Row = ("Key", "Value", "Default", "Meaning")
EXTENDS: Row = (
    "`extends`",
    "a name",
    "–",
    "Name of a suite in the same folder: each key that stands here replaces its key of that name as a whole. It must "
    "not extend a suite itself.",
)
#: key of the file -> the values that are allowed beyond what its type says
ALLOWED = {
    "measure": f"{', '.join(f'`{name}`' for name in MEASURES)} and `{TRANSFER}CORPUS`",
    "keep": ", ".join(f"`{name}`" for name in KEPT),
}
KINDS: dict[Any, str] = {bool: "`true` or `false`", int: "a whole number", float: "a number", str: "text"}
PARTS = (  # heading, what stands before the table, dataclass
    ("The file", "These keys stand at the top of the file, before the first `[table]`.", suites._File),
    (
        "Tables",
        "`[[table]]` stands once for each choice of feature sets. Its rows are compared with each other.",
        suites._Table,
    ),
    (
        "Methods",
        'An entry of `methods` is a name, such as `"mult"`, or has these keys: `{ name = "mult", options = { layers = '
        "1 } }`. `mer-bench list methods NAME` shows the options of a method.",
        suites._Method,
    ),
    (
        "Training",
        "`[training]` holds for all rows; the key `training` of a table, and then that of a method, change it. These "
        "are also what `--train NAME=VALUE` of `mer-bench run` takes.",
        Training,
    ),
    (
        "Tuning",
        "`[tune]` says what `mer-bench tune` tries on validation data. A space maps the name of a setting to a range, "
        "or to a list of values. Settings are training options, or options of the methods.",
        suites.Tune,
    ),
    ("Ranges", "A range in a space: `learning_rate = { low = 3e-4, high = 3e-3, log = true }`.", suites.Range),
)


def page() -> str:
    """The whole page."""
    example = find_suite(Path("simulated")).read_text(encoding="utf-8")
    parts = [
        "# Suite reference\n",
        "A suite is a TOML file. It names a corpus, feature sets, methods and seeds. `mer-bench bench SUITE` trains "
        "each row on each fold with each seed. This page is generated from the code that reads suites. A key that is "
        "not on it is refused, and so is a value of another type or out of its range: the message names the key and "
        "the nearest valid name.\n",
        f"For example, this is the suite `simulated`, which `make bench` runs:\n\n```toml\n{example}```\n",
    ]
    for heading, text, kind in PARTS:
        rows = [HEAD, *([EXTENDS] if kind is suites._File else []), *(_row(item, kind) for item in fields(kind))]
        parts.append(f"## {heading}\n\n{text}\n\n{markdown(rows, '<<<<')}")
    return "\n".join(parts)


def _row(item: Field[Any], kind: type) -> Row:
    said, allowed = sentence(comments(kind)[item.name]), ALLOWED.get(item.name, "") if kind is suites._File else ""
    meaning = f"{said} Allowed: {allowed}." if allowed else said
    return f"`{item.name}`", in_words(get_type_hints(kind, include_extras=True)[item.name]), _default(item), meaning


def _default(item: Field[Any]) -> str:
    if item.default is MISSING and item.default_factory is MISSING:
        return "required"
    value = item.default_factory() if item.default_factory is not MISSING else item.default
    return "–" if value is None or value in ("", [], {}) else f"`{json.dumps(value)}`"


def in_words(kind: Any) -> str:
    """What a value of a type is, as text of a page."""
    if kind == Option:
        return "a value that the option takes"
    if kind == suites.Space:
        return "setting → range or list"
    if kind in KINDS:
        return KINDS[kind]
    if is_dataclass(kind):
        return "a table (below)"
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(arguments[0], [each for each in arguments[1:] if isinstance(each, Meta)])
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(in_words(each) for each in arguments if each is not NoneType))
    if origin is list:
        return f"a list: {in_words(arguments[0])}"
    if isinstance(origin, type) and issubclass(origin, Mapping):
        if arguments[1] is Any:
            return "keys of `[training]`"
        return f"{in_words(arguments[0])} → {in_words(arguments[1])}"
    raise TypeError(f"no words for {kind}")


def _annotated(kind: Any, metas: list[Meta]) -> str:
    pattern = next((meta.pattern for meta in metas if meta.pattern), None)
    if pattern is not None:
        said = PATTERNS[pattern]
        return said.split(" of at most")[0] if said.startswith("a name") else said
    words = in_words(kind)
    for meta in metas:
        if meta.min_length == 1:
            words = words.replace("a list:", "a list of at least one:")
        ends = {"from": meta.ge, "above": meta.gt, "to": meta.le, "below": meta.lt}
        words += "".join(f" {word} {_number(end)}" for word, end in ends.items() if end is not None and abs(end) < 1e10)
    return words


def _number(value: float) -> str:
    return f"{value:g}" if value < 1e6 else f"{value:,.0f}"
