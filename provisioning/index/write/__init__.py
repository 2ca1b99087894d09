"""Writing `corpus.index`, the same bytes on every computer."""
