"""Bases made of Debian's packages, unpacked: no root, no chroot, no daemon, no dpkg, on any system."""

from builder.bases.debian.make import make_image, why_not_debian

__all__ = ["make_image", "why_not_debian"]
