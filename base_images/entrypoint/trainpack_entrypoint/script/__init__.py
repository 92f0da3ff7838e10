"""The script: its command line, its process, its output."""
