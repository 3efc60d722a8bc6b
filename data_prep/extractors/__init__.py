"""Frozen unimodal extractors: from media and text to features."""
