"""Bring the catalogue up to date with the sources: read only what is new or may have changed."""
