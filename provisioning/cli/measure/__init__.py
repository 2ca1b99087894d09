"""Commands that measure whether a cache recognises places, and how fast."""
