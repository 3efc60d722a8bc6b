"""Frozen unimodal extractors: media and text -> features."""
