"""Delivery: a verified generation as one file, into a directory, or over a wire; never half of it at the other end.

The receiving half imports the standard library and cryptography only: a vehicle needs no more.
"""
