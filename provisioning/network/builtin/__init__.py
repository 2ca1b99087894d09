"""Networks that come with flightcache: as graphs written here, weights from a package where they need any."""
