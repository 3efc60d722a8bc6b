"""What the self-contained HTML page holds, read from its text."""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Held:
    """What a page shows first, and the files that it opens."""

    front: dict[str, Any]
    files: dict[str, str]

    def json(self, name: str) -> Any:
        return json.loads(self.files[name])

    def tables(self) -> list[Any]:
        """Every table, in the order of the page."""
        return [self.json(f"{key}.json") for key in self.front["tables"]]

    def details(self) -> list[Any]:
        return [self.json(f"{key}-details.json") for key in self.front["tables"]]

    def panel(self, title: str) -> dict[str, Any] | None:
        """The panel of that title below the only table."""
        (table,) = self.tables()
        return next((panel for panel in table["panels"] if panel["title"] == title), None)


def read(page: str) -> Held:
    (front,) = re.findall(r'<script type="application/json" id="front">(.*?)</script>', page, re.DOTALL)
    blocks = re.findall(r'<script type="text/plain" data-file="([a-z0-9.-]+)">([A-Za-z0-9+/=]+)</script>', page)
    return Held(json.loads(front), {name: zlib.decompress(base64.b64decode(text)).decode() for name, text in blocks})
