"""Commands that look, without the lock, and write nothing."""
