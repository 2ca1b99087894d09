"""Points, boxes and tiles of the Web Mercator grid, in integers."""
