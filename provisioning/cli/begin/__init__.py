"""Commands that begin: a cache directory, a key, a demo."""
