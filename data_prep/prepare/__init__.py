"""A corpus from its release to all its features: the only place that joins corpora and extractors."""
