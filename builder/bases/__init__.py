"""Base images: looked up, and built where they are missing.

A base is unpacked from Debian's packages, without an engine, or built on the catalogue's upstream image by
one; either way the catalogue says what its containers start with. Or it is one of the user's own, which is
in a registry, a layout, an archive or the engine.
"""

from builder.bases.build import (
    UNBUILT,
    Source,
    base_image,
    build_base,
    ensure_base,
    load_base,
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
from builder.bases.own import engine_names, resolve_own

__all__ = [
    "UNBUILT",
    "UPSTREAM_PREFIX",
    "Catalogue",
    "Source",
    "base_image",
    "build_base",
    "engine_names",
    "ensure_base",
    "find_recipe",
    "glibc_of",
    "load_base",
    "load_catalogue",
    "render_dockerfile",
    "resolve_base",
    "resolve_own",
    "upstream_reference",
    "why_not_upstream",
]
