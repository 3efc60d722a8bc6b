"""``python -m website`` (``make reference``) writes the generated pages of ``docs`` and names those that changed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import click

from mer_bench.files import write_atomic
from website import command_page, croissant, dataset_page, method_page, suite_page
from website.corpora import CARDS

DOCS = Path(__file__).parent.parent / "docs"
#: path below ``docs`` -> function that gives the content
GENERATED: Mapping[str, Callable[[], str]] = {
    "suites.md": suite_page.page,
    "commands.md": command_page.page,
    "methods.md": method_page.page,
    "datasets.md": dataset_page.page,
    **{f"croissant/{name}.json": partial(croissant.page, name) for name in CARDS},
}


def main() -> None:
    """Write the pages that are not up to date."""
    for name, generate in GENERATED.items():
        path, text = DOCS / name, generate()
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(exist_ok=True)
            write_atomic(path, text)
            click.echo(path.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
