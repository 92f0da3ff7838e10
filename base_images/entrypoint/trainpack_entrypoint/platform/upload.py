"""A file on its way to be an artifact of an experiment."""

from __future__ import annotations

import os
from typing import Any


class Upload:
    """Sends the content once: after a failure behind that, only the artifact that names it is tried again.

    The SDK's own `store` would start from the first byte.
    """

    def __init__(self, experiment: Any, name: str, path: str) -> None:
        self._experiment = experiment
        self._name = name
        self._path = path
        self._sent: dict[str, Any] | None = None

    def put(self) -> None:
        """Do what is left to do."""
        if self._sent is None:
            self._sent = self._send()
        self._name_it(self._sent)

    def _send(self) -> dict[str, Any]:
        from picsellia.types.enums import ObjectDataType

        filename, connection = os.path.basename(self._path), self._experiment.connection
        object_name = connection.generate_experiment_object_name(
            filename, ObjectDataType.ARTIFACT, self._experiment.id
        )
        _, is_large, _ = connection.upload_file(object_name, self._path)
        return {"name": self._name, "filename": filename, "object_name": object_name, "large": is_large}

    def _name_it(self, sent: dict[str, Any]) -> None:
        from picsellia.exceptions import ResourceConflictError, ResourceNotFoundError

        try:
            self._experiment.get_artifact(self._name).update(**sent)
        except ResourceNotFoundError:
            try:
                self._experiment.create_artifact(**sent)
            except ResourceConflictError:
                # It was made by a request whose answer was lost.
                self._experiment.get_artifact(self._name).update(**sent)
