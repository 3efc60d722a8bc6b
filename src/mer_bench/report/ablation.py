"""The options that take a part out of a method; such rows are compared with the whole method and never ranked.

They are the ablations of the papers, as far as public material describes them, and the other directions in which one
modality can guide another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: method -> what is changed -> the options that change it
CELLS: dict[str, dict[str, dict[str, Any]]] = {
    "cfn_sr": {
        "without the cross-modal block": {"cross_modal": False},
        "without self-attention": {"self_attention": False},
        "without the residual": {"residual": False},
        "vision guides, not audio": {"guide": "vision"},
        "text guides, not audio": {"guide": "text"},
    },
    "tacfn": {
        "without cross-modal blocks": {"directions": "none"},
        "without self-attention": {"self_attention": False},
        "without the splice (weights from the target alone)": {"splice": False},
        "without the residual": {"residual": False},
        "audio is guided, not guide": {"directions": "reverse"},
        "both directions": {"directions": "all"},
    },
    "sync_tva": {
        "without dynamic enhancement": {"enhancement": False},
        "without graphs": {"graph": "none"},
        "without cross-modal edges": {"graph": "within"},
        "edges within an utterance only": {"graph": "same_utterance"},
        "edges to all turns": {"graph": "full"},
        "one graph of all modalities": {"graph": "joint"},
        "concatenation for cross-attention": {"fusion": "concat"},
        "addition for cross-attention": {"fusion": "add"},
        "gated sum for cross-attention": {"fusion": "gated"},
    },
}


def split(method: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Split the options of a row into the part that is changed, "" if none, and the options of the whole method."""
    found = {
        name: changes for name, changes in CELLS.get(method, {}).items() if changes.items() <= dict(options).items()
    }
    switched = {key for changes in found.values() for key in changes}
    return ", ".join(found), {key: value for key, value in options.items() if key not in switched}
