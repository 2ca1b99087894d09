"""Descriptors: every tile through the network once, kept under (tile SHA-256, descriptor key) for good.

Importing this package is cheap; `describe` and `store` import numpy.
"""

from provisioning.descriptors.facts import descriptor_facts, headings, store_path
from provisioning.descriptors.receipts import is_described

__all__ = ["descriptor_facts", "headings", "is_described", "store_path"]
