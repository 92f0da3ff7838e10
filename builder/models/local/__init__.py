"""The store in a folder of this machine: one SQLite file, and files by their content."""
