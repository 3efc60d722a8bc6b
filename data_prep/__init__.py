"""Preparation of raw corpora into utterance tables and feature sets; needs libraries for audio, video and text."""
