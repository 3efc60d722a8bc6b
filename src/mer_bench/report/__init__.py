"""Tables and pages from records. Nothing in this package needs torch, except the tables of simulated corpora."""
