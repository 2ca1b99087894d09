"""Rows of a descriptor store, for tests and for the processes that they start: nothing else is imported."""

import hashlib

import numpy as np

from provisioning.descriptors.store.store import DescriptorStore

KEY, DIMENSION = "k" * 64, 12


def shas(*numbers):
    return [hashlib.sha256(b"%d" % n).digest() for n in numbers]


def vectors(*numbers, dimension=DIMENSION):
    """Return unit vectors that are a function of their number."""
    found = [np.random.default_rng(n).standard_normal(dimension) for n in numbers]
    return np.stack([v / np.linalg.norm(v) for v in found]).astype(np.float32)


def opened(path, dtype="float32", key=KEY):
    return DescriptorStore(path, key, dtype)


def fill(path, *numbers, dtype="float32"):
    with opened(path, dtype) as kept:
        kept.append(shas(*numbers), vectors(*numbers))
