"""Many tiles in one file: PMTiles, tables of SQLite, rasters that are cut into tiles."""
