"""Test vectors, their maker, and how to lay out the caches that they describe."""
