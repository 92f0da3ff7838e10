"""Picsellia, through its own SDK; imported only where one is configured."""
