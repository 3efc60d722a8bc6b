"""Trained models on disk: what a run has learnt, in a folder from which it can be used without the corpus."""
