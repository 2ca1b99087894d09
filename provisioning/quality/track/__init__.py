"""A flight as a sequence of photos: the answers of the cache and odometry in a filter, against dead reckoning."""
