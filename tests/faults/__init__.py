"""Faults of a run: what is done to a real container and its platform, and what must come of it."""
