"""Commands that judge a cache."""
