"""Compiling on the computer that will fly the engine."""
