"""Stores of tiles: each kind reads bytes by address and knows no catalogue."""
