"""Base images: looked up in the engine, and built where they are missing.

The operating system comes from the upstream image of the catalogue where its registry answers, else from
Debian's mirror through mmdebstrap; one Dockerfile template makes the same base of either.
"""

from builder.bases.bootstrap import cache_folder, copy_rootfs
from builder.bases.build import (
    UNBUILT,
    Source,
    build_base,
    ensure_base,
    package_sources,
    render_dockerfile,
    resolve_base,
    why_not_upstream,
)
from builder.bases.catalogue import (
    UPSTREAM_PREFIX,
    Catalogue,
    find_recipe,
    glibc_of,
    load_catalogue,
    upstream_reference,
)

__all__ = [
    "UNBUILT",
    "UPSTREAM_PREFIX",
    "Catalogue",
    "Source",
    "build_base",
    "cache_folder",
    "copy_rootfs",
    "ensure_base",
    "find_recipe",
    "glibc_of",
    "load_catalogue",
    "package_sources",
    "render_dockerfile",
    "resolve_base",
    "upstream_reference",
    "why_not_upstream",
]
