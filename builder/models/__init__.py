"""Models, their versions and experiments, in the local store or on Picsellia."""
