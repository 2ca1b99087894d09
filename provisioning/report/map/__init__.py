"""The map of the report."""
