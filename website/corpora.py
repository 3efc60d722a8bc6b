"""What people wrote about corpora and feature sets, for their cards; numbers come from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Card:
    """Facts about a corpus that no code needs."""

    title: str
    text: str  #: what it is
    obtain: str  #: how one gets it, as Markdown
    creator: str
    cite: str
    year: str
    url: str
    licence_url: str = ""
    problems: tuple[str, ...] = field(default=())  #: known ones, each a sentence or two of Markdown


@dataclass(frozen=True)
class FeatureCard:
    """Facts about a feature set that its specification does not hold."""

    content: str  #: what its numbers are
    made_by: str  #: the command, below `make data` in a clone or `mer-bench prepare` elsewhere
    licence: str  #: of the extractor, or of the program behind it


CARDS = {
    "ravdess": Card(
        title="RAVDESS",
        text="Acted emotional speech: 24 professional actors, 12 women and 12 men, speak two sentences in eight "
        "emotions, on video.",
        obtain="Public. `make download DATASET=ravdess` fetches the speech archives of "
        "[Zenodo record 1188976](https://zenodo.org/records/1188976) and the facial landmarks of "
        "[record 3255102](https://zenodo.org/records/3255102).",
        creator="Steven R. Livingstone and Frank A. Russo",
        cite="Livingstone and Russo 2018, The Ryerson Audio-Visual Database of Emotional Speech and Song (RAVDESS), "
        "PLoS ONE 13(5): e0196391",
        year="2018",
        url="https://zenodo.org/records/1188976",
        licence_url="https://creativecommons.org/licenses/by-nc-sa/4.0/",
        problems=(
            "The emotions are acted, and the text says nothing about them: every sentence is spoken in every emotion.",
            "All actors speak the same two sentences, so that test and training share their words in every protocol "
            "but `folds6_text`.",
            "Neutral has one level of intensity and so half as many takes as each other emotion.",
            "The protocol `literature` has no validation, and never tests actors 21 to 24.",
        ),
    ),
    "iemocap": Card(
        title="IEMOCAP",
        text="Dialogues of two actors, improvised and scripted, recorded in five sessions with a woman and a man each; "
        "three evaluators labelled each utterance.",
        obtain="On request: USC SAIL gives access after a signed agreement ([form](https://sail.usc.edu/iemocap/)).",
        creator="Carlos Busso et al., University of Southern California",
        cite="Busso et al. 2008, IEMOCAP: interactive emotional dyadic motion capture database, Language Resources and "
        "Evaluation 42(4)",
        year="2008",
        url="https://sail.usc.edu/iemocap/",
        problems=(
            "Packs of features in the style of DialogueRNN have 7,433 utterances of six classes, the release has "
            "7,380. The 53 others have no majority label in the release and are happy in the packs (label set "
            "`six_community`).",
            "The sessions share their scripts, so that many test sentences of scripted dialogues are training "
            "sentences too (see the numbers below). A text model can remember their labels.",
            "The letter in the number of an utterance (`_F003`), not the name of its dialogue, says who speaks.",
            "The records here use text and audio functionals. No video of the release was available.",
        ),
    ),
    "meld": Card(
        title="MELD",
        text="Dialogues of several speakers from the television series Friends, with the official splits.",
        obtain="Public: `make download DATASET=meld` fetches it ([declare-lab/MELD](https://github.com/declare-lab/MELD)).",
        creator="Soujanya Poria et al.",
        cite="Poria et al. 2019, MELD: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations, ACL",
        year="2019",
        url="https://affective-meld.github.io",
        licence_url="https://www.gnu.org/licenses/gpl-3.0.html",
        problems=(
            "Some speakers occur in several of the official splits, so that tests are not independent of speakers.",
            "The classes are far from equally frequent: accuracy is high for a method that says neutral too often.",
            "Sentiment does not follow from emotion (surprise is positive or negative); it has a file of its own.",
            "The records here use text and ten prosodic functionals. No video was used.",
        ),
    ),
}

SETS = {
    "mfcc": FeatureCard(
        "40 mel-frequency cepstral coefficients of the whole clip at 16 kHz.",
        "`make data` (`audio mfcc`)",
        "none: signal processing",
    ),
    "landmarks": FeatureCard(
        "68 points of the face: origin midway between the eyes, eyes level, unit their median distance in the clip; "
        "then position (2), distance and slope of the eyes.",
        "`make data`, from the CSVs of Zenodo record 3255102",
        "that of RAVDESS, CC BY-NC-SA 4.0",
    ),
    "whisper-base-l3": FeatureCard(
        "Third layer of the encoder of Whisper base; the mean of each four frames.",
        "`python -m data_prep audio whisper --table data/ravdess --raw RAW --model openai/whisper-base --layer 3`",
        "Apache-2.0",
    ),
    "minilm": FeatureCard(
        "all-MiniLM-L6-v2, a small sentence encoder: the mean of the last layer over all tokens, not normalised.",
        "`make data`",
        "Apache-2.0",
    ),
    "minilm-tokens": FeatureCard(
        "all-MiniLM-L6-v2: the last layer, one vector per token without special ones, at most 128 tokens.",
        "`make data`",
        "Apache-2.0",
    ),
    "mpnet": FeatureCard(
        "all-mpnet-base-v2, a sentence encoder: the mean of the last layer over all tokens, not normalised.",
        "`make data FEATURES=light`",
        "Apache-2.0",
    ),
    "gemaps": FeatureCard(
        "47 functionals of GeMAPS, means and standard deviations, imported.",
        "`make data`, from an npz with `ids` and `gemaps47`",
        "openSMILE, which computes GeMAPS, is free for research and private use alone",
    ),
    "prosody": FeatureCard(
        "Ten functionals by Praat, imported: duration, intensity, pitch, rate, harmonicity, two flags.",
        "`make data`, from an npz with `ids` and `prosody10`",
        "none: signal processing",
    ),
    "gemaps-prosody": FeatureCard(
        "The columns of `gemaps` and `prosody` side by side.",
        '`make data`, where both are there (`join --sets "gemaps prosody"`)',
        "as for `gemaps`",
    ),
}
