"""Descriptors on several machines."""
