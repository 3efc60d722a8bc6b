"""Training: one spec in, one record out, and a suite of them."""
