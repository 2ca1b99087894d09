"""Processes: other programs, foreign input read apart, an end within seconds."""
