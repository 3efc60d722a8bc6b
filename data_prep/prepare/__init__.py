"""Preparation of a corpus, from its release to its feature sets; the only place that joins corpora and extractors."""
