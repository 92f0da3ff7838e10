"""Wheels into layers: downloaded once, laid out as an installer would, never recompressed."""
