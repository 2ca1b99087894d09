"""What every part stands on: errors, durable files, digests, geometry of tiles, events, artefacts, the build lock."""
