"""Whether an engine computes what its network computes, and where not."""
