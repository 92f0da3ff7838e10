"""Whether the host has the GPUs and the driver that the image needs."""
