"""Commands that free space."""
