"""From bytes of a tile to the image that a network takes."""
