"""Features that others have made -> feature sets."""
