"""The last build once more: what it saw, whether that changed, and only the code built anew."""
