"""What flightcache does, without doit: read, compile, describe, index, sign, verify, publish."""
