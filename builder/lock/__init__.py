"""From requirements to exact distributions: resolved by uv, kept as `pylock.toml`, read for the image."""
