"""Records -> tables and pages. Nothing in it needs torch."""
