"""What is attested of an image: its SBOM and its provenance."""
