"""Experiments in the local store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from builder.models.folders import files_below
from builder.models.local.database import Database
from builder.models.local.datasets import LocalDatasets
from builder.models.local.files import Files
from builder.models.local.objects import EXPERIMENTS, Objects, decode, encode, now
from builder.models.local.versions import LocalVersions
from builder.models.names import DatasetName, ExperimentName, ExperimentSummary, VersionName
from builder.models.records import (
    Experiment,
    ExperimentFields,
    Log,
    ModelVersion,
    Source,
    VersionFields,
)
from builder.models.values import LINE, as_json, check_alias, check_log, checked_experiment

RECEIVED = ("parameters", "labelmap", "image")


class LocalExperiments:
    """The `Experiments` of the local store."""

    def __init__(
        self, database: Database, files: Files, versions: LocalVersions, datasets: LocalDatasets
    ) -> None:
        self._database = database
        self._files = files
        self._versions = versions
        self._datasets = datasets
        self.objects = Objects(database, ExperimentName, EXPERIMENTS)

    def list(self, project: str | None = None) -> Iterator[ExperimentSummary]:
        """Every experiment of the store, or of one project, by name.

        Raises:
            NotFoundError: There is no such project.
            StoreError: The store failed.
        """
        bases = {row["id"]: name for row, name in self._bases()}
        for row in self.objects.of(project):
            name = self.objects.name(row)
            yield ExperimentSummary(
                id=row["id"],
                name=name,
                status=self._fields(row).status,
                base=bases.get(row["base_id"]),
            )

    def get(self, name: ExperimentName) -> Experiment:
        """Read one experiment.

        Raises:
            NotFoundError: It does not exist; the message names one that is close.
            StoreError: The store failed.
        """
        row = self.objects.require(name)
        return Experiment(
            id=row["id"],
            name=name,
            fields=self._fields(row),
            base=next(iter(self._versions.objects.names("objects.id = ?", row["base_id"])), None),
            datasets=self._attached(row["id"]),
            artifacts=self._files.of(row["id"]),
            logs=self._logs(row["id"]),
            published=self._versions.objects.names("objects.experiment_id = ?", row["id"]),
            creator=row["creator"],
            created=row["created"],
            updated=row["updated"],
        )

    def create(
        self, name: ExperimentName, fields: ExperimentFields, base: VersionName | None = None
    ) -> Experiment:
        """Make an experiment, and its project when there is none yet; all or nothing.

        Raises:
            UsageError: The name or a value cannot be stored, or the base is of another store.
            NotFoundError: The base version does not exist.
            StoreError: It exists already, or the store failed.
        """
        checked = checked_experiment(fields, str(name))
        with self._database.transaction():
            origin = self._versions.objects.require(base) if base else None
            received, made = self._received(checked, origin), now()
            columns = {"base_id": origin and origin["id"], "created": made, "updated": made}
            id_ = self.objects.insert(name, {"fields": encode(received), **columns})
            if origin:
                self._files.hand_on(origin["id"], id_)
        return self.get(name)

    def update(self, name: ExperimentName, fields: ExperimentFields) -> Experiment:
        """Write every field that is not None.

        Raises:
            UsageError: A value cannot be stored.
            NotFoundError: The experiment does not exist.
            StoreError: The store failed.
        """
        checked = checked_experiment(fields, str(name))
        with self._database.transaction():
            self._write(self.objects.require(name), checked)
        return self.get(name)

    def attach_dataset(self, name: ExperimentName, alias: str, dataset: DatasetName) -> Experiment:
        """Attach a dataset version under an alias; one that has the alias is replaced.

        Raises:
            UsageError: It cannot be an alias, or the dataset is of another store.
            NotFoundError: There is no such experiment or dataset version.
            StoreError: The store failed.
        """
        check_alias(alias, str(name))
        with self._database.transaction():
            row = self.objects.require(name)
            self._database.execute(
                "INSERT OR REPLACE INTO attached (experiment_id, alias, dataset_version_id) VALUES (?, ?, ?)",
                (row["id"], alias, self._datasets.objects.require(dataset)["id"]),
            )
            self.objects.write(row["id"], {"updated": now()})
        return self.get(name)

    def report(self, name: ExperimentName, status: str, logs: Sequence[Log], artifacts: Path) -> Experiment:
        """Take what a run left, all or nothing: logs, every file of a folder, the status.

        Raises:
            UsageError: The status or a log is none, or the folder cannot be read.
            NotFoundError: The experiment does not exist.
            StoreError: The store failed.
        """
        fields = checked_experiment(ExperimentFields(status=status), str(name))
        for log in logs:
            check_log(log, str(name))
        self.objects.require(name)
        files = self._files.put(files_below(artifacts))
        with self._database.transaction():
            row = self.objects.require(name)
            self._files.write(row["id"], files)
            for log in logs:
                self._log(row["id"], log)
            self._write(row, fields)
        return self.get(name)

    def fetch_artifact(self, name: ExperimentName, label: str, into: Path) -> Path:
        """Write an artifact below a folder, verified, and return its path; a folder comes back as one.

        Raises:
            NotFoundError: There is no such experiment or artifact.
            StoreError: What is stored is not what was once kept.
            UsageError: The target exists, or cannot be written.
        """
        files = self._files.of(self.objects.require(name)["id"])
        return self._files.fetch(files, label, name, into)

    def publish(self, name: ExperimentName, version: VersionName) -> ModelVersion:
        """Make a new version of an experiment; framework and type are those of the version it was made from.

        Raises:
            UsageError: The name cannot be stored.
            NotFoundError: The experiment does not exist.
            StoreError: The version exists already, or the store failed.
        """
        with self._database.transaction():
            row = self.objects.require(name)
            source = Source(experiment=name, datasets=self._attached(row["id"]))
            id_ = self._versions.insert(version, self._published(row), source, experiment_id=row["id"])
            self._files.hand_on(row["id"], id_)
        return self._versions.get(version)

    def _received(self, fields: ExperimentFields, base: sqlite3.Row | None) -> ExperimentFields:
        """An experiment's own fields, and those that it has none of from its base."""
        theirs = self._versions.fields(base) if base else VersionFields()
        received = {key: getattr(theirs, key) for key in RECEIVED if getattr(fields, key) is None}
        return fields.model_copy(update={"status": fields.status or "WAITING", **received})

    def _published(self, row: sqlite3.Row) -> VersionFields:
        fields = self._fields(row)
        bases = self._versions.objects.rows("objects.id = ?", (row["base_id"],))
        base = self._versions.fields(bases[0]) if bases else VersionFields()
        return VersionFields(
            framework=base.framework, type=base.type, **{key: getattr(fields, key) for key in RECEIVED}
        )

    def _bases(self) -> Iterator[tuple[sqlite3.Row, VersionName]]:
        objects = self._versions.objects
        for row in objects.rows("objects.id IN (SELECT base_id FROM experiments)"):
            yield row, objects.name(row)

    def _write(self, row: sqlite3.Row, fields: ExperimentFields) -> None:
        written = {key: value for key, value in fields if value is not None}
        document = encode(self._fields(row).model_copy(update=written))
        self.objects.write(row["id"], {"fields": document, "updated": now()})

    def _fields(self, row: sqlite3.Row) -> ExperimentFields:
        return decode(ExperimentFields, row["fields"], self.objects.name(row))

    def _attached(self, id_: str) -> dict[str, DatasetName]:
        attached = self._database.execute(
            "SELECT alias, dataset_version_id FROM attached WHERE experiment_id = ? ORDER BY alias", (id_,)
        )
        found = self._datasets.objects.names
        return {row["alias"]: found("objects.id = ?", row["dataset_version_id"])[0] for row in attached}

    def _logs(self, id_: str) -> tuple[Log, ...]:
        rows = self._database.execute(
            "SELECT name, type, data FROM logs WHERE experiment_id = ? ORDER BY rowid", (id_,)
        )
        return tuple(Log(name=row["name"], type=row["type"], data=json.loads(row["data"])) for row in rows)

    def _log(self, id_: str, log: Log) -> None:
        data = as_json(log.data)
        if log.type == LINE:
            rows = self._database.execute(
                "SELECT data FROM logs WHERE experiment_id = ? AND name = ? AND type = ?",
                (id_, log.name, LINE),
            )
            data = [point for row in rows for point in json.loads(row["data"])] + data
        self._database.execute(
            "INSERT INTO logs (experiment_id, name, type, data) VALUES (?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET type = excluded.type, data = excluded.data",
            (id_, log.name, log.type, json.dumps(data, ensure_ascii=False)),
        )
