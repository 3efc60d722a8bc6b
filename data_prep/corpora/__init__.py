"""Readers of the releases: files on disk -> utterances and clips."""
