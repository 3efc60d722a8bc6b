"""Import of features that others have computed, as feature sets of a prepared corpus."""
