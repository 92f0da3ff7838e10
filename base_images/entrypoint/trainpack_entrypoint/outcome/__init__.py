"""What came of a run: its outputs, and the documents that say what happened."""
