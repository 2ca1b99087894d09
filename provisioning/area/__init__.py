"""What the aircraft will fly over: areas, corridors and missions as the tiles that they need. Knows no database."""
