"""``ravdess|iemocap|meld --raw PATH``: prepare one corpus with the feature sets its files allow.

``download ravdess|meld`` downloads the files first. Further commands add feature sets to a prepared corpus: ``audio``,
``vision`` and ``text`` extract them, ``import`` and ``pack`` import existing ones, ``join`` joins their columns.
``import-table`` makes the utterance table of a corpus of your own. Reading media and extracting features need pip
install 'mer-bench[prep]'.
"""

from __future__ import annotations

import click

from data_prep.corpora import download
from data_prep.extractors import audio, text, vision
from data_prep.imports import arrays, join, packs, tables
from data_prep.prepare import iemocap, meld, ravdess

COMMANDS = (
    ravdess.main,
    iemocap.main,
    meld.main,
    text.text_command,
    audio.audio_command,
    vision.vision_command,
    arrays.main,
    packs.main,
    join.main,
    tables.main,
    download.main,
)
main = click.Group(commands=COMMANDS, help=(__doc__ or "").replace("``", ""))

if __name__ == "__main__":
    main(prog_name="python -m data_prep")
