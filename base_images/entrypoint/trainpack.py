"""For scripts that want it."""
