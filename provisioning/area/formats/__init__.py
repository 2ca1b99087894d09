"""The file formats of areas and missions, each read into the same values."""
