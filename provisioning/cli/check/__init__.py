"""Commands that examine a cache."""
