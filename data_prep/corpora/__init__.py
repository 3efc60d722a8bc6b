"""Readers of the corpora as they are distributed: from files on disk to utterance tables and clips."""
