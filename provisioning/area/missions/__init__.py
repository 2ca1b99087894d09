"""What an autopilot flies: the steps of a mission, the patterns they stand for, and the legs between them."""
