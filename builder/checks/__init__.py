"""Contract checks: each proves one promise of docs/contract.md through the image's own entrypoint."""
