"""The tables, as steps from one schema version to the next."""

# In order; a step that was released is never edited, a change is a new step.
MIGRATIONS = (
    """
    CREATE TABLE models (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE versions (
        id TEXT PRIMARY KEY,
        model_id TEXT NOT NULL REFERENCES models (id),
        name TEXT NOT NULL,
        fields TEXT NOT NULL CHECK (json_valid(fields)),
        UNIQUE (model_id, name)
    ) STRICT;
    CREATE TABLE history (
        id INTEGER PRIMARY KEY,
        version_id TEXT NOT NULL REFERENCES versions (id),
        replaced_at TEXT NOT NULL,
        fields TEXT NOT NULL CHECK (json_valid(fields))
    ) STRICT;
    CREATE INDEX history_of_version ON history (version_id, id);
    """,
)
