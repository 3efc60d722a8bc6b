"""``python -m data_prep ravdess|iemocap|meld --raw PATH``: one corpus, everything its files allow.

``download ravdess|meld`` fetches the files first. Further commands add feature sets to a prepared corpus: ``audio``,
``vision``, ``text``, ``import``, ``pack``.
"""

from __future__ import annotations

import click

from data_prep.corpora import download
from data_prep.extractors import audio, text, vision
from data_prep.imports import arrays as import_features
from data_prep.imports import packs as import_pack
from data_prep.prepare import iemocap, meld, ravdess


@click.group(help=(__doc__ or "").replace("``", ""))
def main() -> None:
    """Dispatch to a corpus or an extractor."""


for command in (
    ravdess.main,
    iemocap.main,
    meld.main,
    text.text_command,
    audio.audio_command,
    vision.vision_command,
    import_features.main,
    import_pack.main,
    download.main,
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="python -m data_prep")
