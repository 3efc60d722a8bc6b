"""Raw corpora to utterance tables and feature sets; the only place that needs audio, video and text libraries."""
