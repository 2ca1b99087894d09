"""How often does a cache know a place? Measured on photos whose position is known, chance beside it."""
