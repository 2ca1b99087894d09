"""Commands that carry a generation to the aircraft, and back."""
