"""report.html and coverage.geojson: what the aircraft will know, for people."""
