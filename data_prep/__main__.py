"""``python -m data_prep ravdess|iemocap|meld --raw PATH``: one corpus, everything its files allow.

Further commands add one feature set to a prepared corpus: ``text``, ``mfcc``, ``vision``, ``import``.
"""

from __future__ import annotations

import click

from data_prep import audio, iemocap, import_features, meld, ravdess, text, vision


@click.group(help=(__doc__ or "").replace("``", ""))
def main() -> None:
    """Dispatch to a corpus or an extractor."""


for command in (
    ravdess.main,
    iemocap.main,
    meld.main,
    text.text_command,
    audio.mfcc_command,
    vision.vision_command,
    import_features.main,
):
    main.add_command(command)

if __name__ == "__main__":
    main(prog_name="python -m data_prep")
