"""The tables, as steps from one schema version to the next.

What can be written on an object is one JSON document, since it is read and written as a whole; what objects
are found or joined by is columns. What a list of versions shows is written beside the document too, and lies
together in one index, so that a list reads nothing else.
"""

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
    """
    CREATE TABLE projects (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE experiments (
        id TEXT PRIMARY KEY,
        project_id TEXT NOT NULL REFERENCES projects (id),
        name TEXT NOT NULL,
        fields TEXT NOT NULL CHECK (json_valid(fields)),
        base_id TEXT REFERENCES versions (id),
        creator TEXT,
        created TEXT NOT NULL,
        updated TEXT NOT NULL,
        UNIQUE (project_id, name)
    ) STRICT;
    CREATE TABLE datasets (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE
    ) STRICT;
    CREATE TABLE dataset_versions (
        id TEXT PRIMARY KEY,
        dataset_id TEXT NOT NULL REFERENCES datasets (id),
        name TEXT NOT NULL,
        fields TEXT NOT NULL CHECK (json_valid(fields)),
        assets INTEGER,
        size INTEGER,
        annotations INTEGER,
        digest TEXT,
        creator TEXT,
        created TEXT NOT NULL,
        UNIQUE (dataset_id, name)
    ) STRICT;
    CREATE TABLE attached (
        experiment_id TEXT NOT NULL REFERENCES experiments (id),
        alias TEXT NOT NULL,
        dataset_version_id TEXT NOT NULL REFERENCES dataset_versions (id),
        PRIMARY KEY (experiment_id, alias)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE logs (
        experiment_id TEXT NOT NULL REFERENCES experiments (id),
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        data TEXT NOT NULL CHECK (json_valid(data)),
        PRIMARY KEY (experiment_id, name)
    ) STRICT;
    CREATE TABLE files (
        owner_id TEXT NOT NULL,
        role TEXT NOT NULL CHECK (role IN ('file', 'thumbnail')),
        name TEXT NOT NULL,
        filename TEXT NOT NULL,
        size INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        PRIMARY KEY (owner_id, role, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX files_of_content ON files (sha256, owner_id);
    ALTER TABLE versions ADD COLUMN experiment_id TEXT REFERENCES experiments (id);
    ALTER TABLE versions ADD COLUMN source TEXT CHECK (source IS NULL OR json_valid(source));
    ALTER TABLE versions ADD COLUMN creator TEXT;
    ALTER TABLE versions ADD COLUMN created TEXT;
    ALTER TABLE versions ADD COLUMN updated TEXT;
    ALTER TABLE versions ADD COLUMN framework TEXT;
    ALTER TABLE versions ADD COLUMN type TEXT;
    ALTER TABLE versions ADD COLUMN image TEXT;
    ALTER TABLE versions ADD COLUMN digest TEXT;
    UPDATE versions SET
        framework = json_extract(fields, '$.framework'),
        type = json_extract(fields, '$.type'),
        image = json_extract(fields, '$.image.name') || ':' || json_extract(fields, '$.image.tag'),
        digest = json_extract(fields, '$.image.digest');
    CREATE INDEX list_of_versions ON versions (model_id, name, id, framework, type, image, digest);
    CREATE INDEX published_versions ON versions (experiment_id);
    """,
)
