"""mer_bench: fusion methods for multimodal emotion recognition, compared on identical frozen unimodal features."""

__version__ = "0.1.0"
