"""Descriptors on disk: append-only shards, a key map, receipts."""
