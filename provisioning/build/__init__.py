"""A build: what is asked for as addresses, why each task is due, its step, what a generation holds."""
