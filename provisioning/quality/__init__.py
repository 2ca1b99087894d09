"""Measured before the flight: gates, `locate` and `evaluate`."""
