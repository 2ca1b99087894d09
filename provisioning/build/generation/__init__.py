"""What a generation holds: its files, its Manifest, report and provenance."""
