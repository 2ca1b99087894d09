"""From the address of a tile to its descriptor: decode, fit, infer, write."""
