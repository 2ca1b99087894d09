"""Where the tiles of a source lie: what says so, and whether it agrees."""
