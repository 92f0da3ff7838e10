"""The list of versions, read from its index alone."""

from __future__ import annotations

from collections.abc import Iterator

from builder.models.local.database import Database
from builder.models.names import VersionName, VersionSummary

# No other column: these lie in one index, and a list reads nothing of the documents.
LIST = """
    SELECT versions.id, models.name, versions.name, framework, type, image, digest
    FROM models CROSS JOIN versions INDEXED BY list_of_versions ON model_id = models.id
    WHERE models.name = ifnull(?, models.name)
    ORDER BY models.name, versions.name
"""


def list_versions(database: Database, model: str | None = None) -> Iterator[VersionSummary]:
    """Every version of the store, or of one model, by name; nothing where there is no such model.

    Raises:
        StoreError: The store failed.
    """
    for id_, owner, own, framework, type_, image, digest in database.execute(LIST, (model,)):
        yield VersionSummary(
            id=id_,
            name=VersionName(model=owner, version=own),
            framework=framework,
            type=type_,
            image=image,
            digest=digest,
        )
