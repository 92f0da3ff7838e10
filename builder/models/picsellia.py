"""ModelVersions on the Picsellia platform, through its own SDK.

What its SDK does (read from 6.37.0): docker fields and parameters are readable only in the raw answer of
`sync()`; None is dropped from what it sends, so that a field cannot be cleared; it repeats connection errors
and nothing else; importing it sends every log record of the process to standard output, unless told not to.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import requests

from builder.credentials import Credentials
from builder.errors import NotFoundError, StoreError, UsageError
from builder.flags import REFUSED, SHORT, normalise_flags
from builder.models.names import VersionName, VersionSummary
from builder.models.records import (
    DIGEST_VARIABLE,
    DockerImage,
    Model,
    ModelVersion,
    PastState,
    Source,
    StoredFile,
    VersionFields,
)
from builder.models.store import Datasets, Experiments
from builder.models.transport import NoAnswerError, Patience, patient_session
from builder.records import Record

STORE = "picsellia"
FRAMEWORKS = ("TENSORFLOW", "PYTORCH", "ONNX")
TYPES = ("CLASSIFICATION", "OBJECT_DETECTION", "SEGMENTATION", "POINT", "KEYPOINT", "LINE", "MASK")
NOT_CONFIGURED = "NOT_CONFIGURED"
LONGEST_MESSAGE = 300  # characters of an answer that are shown: a proxy's error page is one long answer
Made = TypeVar("Made")


class Account(Record):
    """Who the platform takes the token for."""

    user: str
    organization: str
    organization_id: str
    host: str
    source: str


class PicselliaStore:
    """The `ModelStore` of an organization on Picsellia.

    Args:
        client: A connected `picsellia.Client`.
        patience: How often to try to make an object when the platform fails.
        source: Where the credentials came from, for people.
    """

    name = STORE

    def __init__(self, client: Any, patience: Patience | None = None, source: str = "") -> None:
        self._client = client
        self._source = source
        self.versions = PicselliaVersions(client, patience or Patience())

    @classmethod
    def connect(cls, credentials: Credentials, patience: Patience | None = None) -> PicselliaStore:
        """Connect to the platform.

        Raises:
            StoreError: The SDK is not installed, the host does not answer, or it refuses the token.
            NotFoundError: There is no such organization.
        """
        patience = patience or Patience()
        token = credentials.token.get_secret_value()
        with _translated(credentials.host, token):
            client = _sdk().Client(
                api_token=token,
                host=credentials.host,
                organization_id=credentials.organization_id,
                organization_name=credentials.organization_name,
                session=patient_session(patience),
            )
        return cls(client, patience, credentials.source)

    def account(self) -> Account:
        """Who the platform takes the token for.

        Raises:
            StoreError: The platform does not answer, or refuses the token.
        """
        with _speaking(self._client):
            user = self._client.connection.get("/api/home/ping").json()["username"]
        return Account(
            user=user,
            organization=self._client.name,
            organization_id=str(self._client.id),
            host=self._client.connection.host,
            source=self._source,
        )

    @property
    def experiments(self) -> Experiments:
        """Experiments."""
        raise StoreError("experiments on Picsellia cannot be used yet", place=self._client.connection.host)

    @property
    def datasets(self) -> Datasets:
        """Dataset versions."""
        raise StoreError("datasets on Picsellia cannot be used yet", place=self._client.connection.host)


class PicselliaVersions:
    """Models and their versions on the platform."""

    def __init__(self, client: Any, patience: Patience) -> None:
        self._client = client
        self._patience = patience

    def models(self) -> Iterator[Model]:
        """Every model of the organization.

        Raises:
            StoreError: The platform does not answer, or refuses.
        """
        for model in self._list_models():
            yield Model(id=str(model.id), name=model.name)

    def list(self, model: str | None = None) -> Iterator[VersionSummary]:
        """Every version of the organization, or of one model.

        Raises:
            NotFoundError: There is no such model.
            StoreError: The platform does not answer, or refuses.
        """
        for found in self._list_models() if model is None else [self._require_model(model)]:
            with _speaking(self._client):
                versions = sorted(found.list_versions(), key=lambda version: str(version.name))
            yield from map(_summary, map(self._read, versions))

    def get(self, name: VersionName) -> ModelVersion:
        """Read one version.

        Raises:
            NotFoundError: The model or the version does not exist; the remedy offers to create it.
            StoreError: The platform does not answer, or refuses.
        """
        return self._read(self._require(name))

    def create(self, name: VersionName, fields: VersionFields, source: Source | None = None) -> ModelVersion:
        """Make a version, and its model when there is none yet; a model that was made for nothing is removed.

        Raises:
            UsageError: The platform does not take the framework or type, or a parameter is not JSON.
            StoreError: The version exists already, the platform does not answer, or refuses.
        """
        keywords = _keywords(fields)
        model = self._find_model(name.model)
        if model is not None and self._find_version(model, name.version) is not None:
            raise StoreError("this version exists already", place=str(name))
        made = model is None
        if model is None:
            model = self._make_model(name.model)
        try:
            version = self._make_version(model, name.version, keywords)
        except BaseException:
            if made:
                self._remove_quietly(model)
            raise
        return self._read(version)

    def update(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write every field that is not None in one PATCH, and return what the platform now holds.

        Raises:
            UsageError: The platform does not take the framework or type, or a parameter is not JSON.
            NotFoundError: The version does not exist.
            StoreError: The platform does not answer, or refuses.
        """
        version = self._require(name)
        keywords = _keywords(fields, version.framework.name, version.type.name)
        if keywords:
            with _speaking(self._client):
                version.update(**keywords)
        return self._read(version)

    def restore(self, name: VersionName, fields: VersionFields) -> ModelVersion:
        """Write all fields as they are."""
        raise self._not_yet(name)

    def history(self, name: VersionName) -> tuple[PastState, ...]:
        """Nothing: the platform keeps no former state."""
        return ()

    def store_file(self, name: VersionName, path: Path, label: str | None = None) -> StoredFile:
        """Keep a file or folder."""
        raise self._not_yet(name)

    def fetch_file(self, name: VersionName, label: str, into: Path) -> Path:
        """Write a stored file below a folder."""
        raise self._not_yet(name)

    def store_thumbnail(self, name: VersionName, path: Path) -> StoredFile:
        """Keep a picture as the version's thumbnail."""
        raise self._not_yet(name)

    def fetch_thumbnail(self, name: VersionName, into: Path) -> Path:
        """Write the thumbnail below a folder."""
        raise self._not_yet(name)

    def _not_yet(self, name: VersionName) -> StoreError:
        return StoreError("this cannot be done on Picsellia yet", place=str(name))

    def _list_models(self) -> Sequence[Any]:
        with _speaking(self._client):
            return sorted(self._client.list_models(), key=lambda model: str(model.name))

    def _require(self, name: VersionName) -> Any:
        remedy = f"create it: trainpack attach {name} --create"
        model = self._require_model(name.model, str(name), remedy)
        version = self._find_version(model, name.version)
        if version is None:
            raise NotFoundError(
                f"the model {name.model!r} has no version {name.version!r}", place=str(name), remedy=remedy
            )
        return version

    def _require_model(self, name: str, place: str | None = None, remedy: str | None = None) -> Any:
        model = self._find_model(name)
        if model is None:
            raise NotFoundError(
                f"the organization {self._client.name!r} has no model {name!r}", place=place, remedy=remedy
            )
        return model

    def _find_model(self, name: str) -> Any:
        with _speaking(self._client), suppress(_sdk().exceptions.ResourceNotFoundError):
            return self._client.get_model(name)

    def _find_version(self, model: Any, name: str) -> Any:
        with _speaking(self._client), suppress(_sdk().exceptions.ResourceNotFoundError):
            return model.get_version(name)

    def _make_model(self, name: str) -> Any:
        return self._make(
            lambda: self._client.create_model(name, description=""), lambda: self._find_model(name)
        )

    def _make_version(self, model: Any, name: str, keywords: Mapping[str, Any]) -> Any:
        return self._make(
            lambda: model.create_version(name=name, **keywords), lambda: self._find_version(model, name)
        )

    def _make(self, make: Callable[[], Made], find: Callable[[], Made | None]) -> Made:
        """Make an object; after a failure look for it first, since only the answer may have been lost."""
        for attempt in itertools.count(1):
            try:
                with _speaking(self._client):
                    return make()
            except _LostAnswerError:
                found = find()
                if found is not None:
                    return found
                if attempt >= self._patience.tries:
                    raise
                self._patience.wait(attempt)
        raise AssertionError("unreachable")

    def _remove_quietly(self, model: Any) -> None:
        with suppress(StoreError), _speaking(self._client):
            model.delete()

    def _read(self, version: Any) -> ModelVersion:
        with _speaking(self._client):
            raw = version.sync()
            return ModelVersion(
                id=str(version.id),
                name=VersionName(store=STORE, model=version.origin_name, version=version.name),
                fields=_fields(raw),
            )


def _summary(version: ModelVersion) -> VersionSummary:
    image = version.fields.image
    return VersionSummary(
        id=version.id,
        name=version.name,
        framework=version.fields.framework,
        type=version.fields.type,
        image=image.tagged if image else None,
        digest=image.digest if image else None,
    )


@contextmanager
def _speaking(client: Any) -> Iterator[None]:
    with _translated(client.connection.host, client.connection.api_token):
        yield


class _LostAnswerError(StoreError):
    """The platform failed in a way that leaves open whether the request took effect."""


def _sdk() -> Any:
    # Without it, importing the SDK reconfigures the root logger: every record to standard output.
    os.environ.setdefault("PICSELLIA_SDK_CUSTOM_LOGGING", "1")
    try:
        import picsellia  # noqa: PLC0415  (0.8 s, and an optional dependency)
        import picsellia.exceptions  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(
            f"the Picsellia SDK cannot be imported: {error}", remedy="pip install 'trainpack[picsellia]'"
        ) from None
    return picsellia


@contextmanager
def _translated(host: str, token: str) -> Iterator[None]:
    """Turn what the SDK raises into a StoreError; the token is in no message and no chained traceback."""
    try:
        yield
    except StoreError:
        raise
    except (requests.RequestException, ValueError, TypeError, KeyError) as error:
        raise _as_store_error(error, host, token) from None
    except Exception as error:
        if not isinstance(error, _sdk().exceptions.PicselliaError):
            raise
        raise _as_store_error(_root(error), host, token) from None


def _root(error: Exception) -> BaseException:
    """What happened below the SDK's constructor, which wraps every failure of its first request."""
    wrapped = str(error).startswith("Cannot connect to the platform")
    return error.__context__ if wrapped and error.__context__ is not None else error


def _as_store_error(error: BaseException, host: str, token: str) -> StoreError:
    text = " ".join(str(error).replace(token, "***").split())[:LONGEST_MESSAGE]
    if text.startswith("[5"):  # 503 and 504: the SDK's base exception, the status in its text only
        error = _sdk().exceptions.InternalServerError(text)
    for kinds, made, message, remedy in _translations():
        if isinstance(error, kinds):
            return made(f"{message}{text}", place=host, remedy=remedy)
    return StoreError(
        f"the answer is not what the SDK expects ({type(error).__name__})",
        place=host,
        remedy="check that the host is a Picsellia platform",
    )


def _translations() -> tuple[tuple[Any, type[StoreError], str, str | None], ...]:
    """The first line that fits: what the SDK raises, what it becomes, how its message starts, the remedy."""
    sdk = _sdk().exceptions
    refused = (sdk.UnauthorizedError, sdk.ForbiddenError)
    failed = (sdk.InternalServerError, sdk.BadGatewayError)
    silent = "check the host and the network: `trainpack doctor`"
    return (
        (refused, StoreError, "the platform refused the token: ", "run `trainpack login`"),
        (sdk.ResourceNotFoundError, NotFoundError, "", None),
        (NoAnswerError, _LostAnswerError, "the platform does not answer: ", silent),
        (sdk.TooManyRequestError, StoreError, "the platform is overloaded: ", "try again later"),
        (failed, _LostAnswerError, "the platform failed: ", "try again later"),
        (sdk.PicselliaError, StoreError, "the platform refused the request: ", None),
    )


def _keywords(fields: VersionFields, framework: str | None = None, kind: str | None = None) -> dict[str, Any]:
    """The SDK's keywords for what is to be written.

    Args:
        framework: The version's present framework, when it exists.
        kind: The version's present type, when it exists.
    """
    keywords: dict[str, Any] = {
        "description": fields.description,
        "framework": _choice("framework", fields.framework, FRAMEWORKS, framework),
        "type": _type(fields.type, kind),
        "labels": fields.labelmap,
        "base_parameters": _json(fields.parameters),
    }
    if fields.image is not None:
        keywords |= _docker_keywords(fields.image)
    return {key: value for key, value in keywords.items() if value is not None}


def _docker_keywords(image: DockerImage) -> dict[str, Any]:
    if DIGEST_VARIABLE in image.env:
        raise UsageError(f"{DIGEST_VARIABLE} is set by trainpack itself", remedy="take it out of [run] env")
    digest = {DIGEST_VARIABLE: image.digest} if image.digest else {}
    return {
        "docker_image_name": image.name,
        "docker_tag": image.tag,
        "docker_flags": list(image.flags),
        "docker_env_variables": {**image.env, **digest},
    }


def _type(wanted: str | None, present: str | None) -> str | None:
    kind = _choice("type", wanted, TYPES, present)
    if kind == "MASK" and present == "MASK":
        return None
    if kind == "MASK" and present is not None:
        raise UsageError(
            f"the type of an existing version cannot become MASK (it is {present}): the SDK refuses it",
            remedy="attach to a new version with --create, or leave [model] type out",
        )
    return kind


def _choice(field: str, wanted: str | None, known: Sequence[str], present: str | None) -> str | None:
    """The value to send, or None to send nothing.

    Raises:
        UsageError: The platform does not take it, or the field would have to be cleared.
    """
    value = wanted.upper() if wanted else None
    if value == NOT_CONFIGURED and present not in (None, NOT_CONFIGURED):
        raise UsageError(
            f"the {field} of a version cannot go back from {present} to NOT_CONFIGURED: the SDK refuses it",
            remedy=f"leave [model] {field} out, or attach to a new version with --create",
        )
    if value in (None, NOT_CONFIGURED):
        return None
    if value not in known:
        trap = ", though it lists it" if value == "MULTI" else ""
        raise UsageError(
            f"Picsellia takes no {field} {value} for a version{trap}: expected one of {', '.join(known)}",
            remedy=f"change [model] {field}",
        )
    return value


def _json(parameters: dict[str, Any] | None) -> dict[str, Any] | None:
    try:
        json.dumps(parameters, allow_nan=False)  # the SDK would write nan as null, and dates as strings
    except (ValueError, TypeError) as error:
        raise UsageError(f"the parameters are not JSON: {error}", place="[parameters]") from None
    return parameters


def _fields(raw: Mapping[str, Any]) -> VersionFields:
    """The fields in a version's raw answer; what was never set is None."""
    parameters = raw.get("parameters")
    return VersionFields(
        description=raw.get("description") or None,
        framework=_configured(raw.get("framework")),
        type=_configured(raw.get("type")),
        labelmap=_labelmap(raw.get("labels")),
        parameters=raw.get("base_parameters") if parameters is None else parameters,
        image=_image(raw),
    )


def _configured(value: str | None) -> str | None:
    return None if value == NOT_CONFIGURED else value


def _labelmap(labels: Mapping[str, Any] | None) -> dict[str, str] | None:
    return None if labels is None else {str(index): str(name) for index, name in labels.items()}


def _image(raw: Mapping[str, Any]) -> DockerImage | None:
    if not raw.get("docker_image"):
        return None
    env = {str(name): str(value) for name, value in (raw.get("docker_env_variables") or {}).items()}
    return DockerImage(
        name=raw["docker_image"],
        tag=raw.get("docker_tag") or "",
        digest=env.pop(DIGEST_VARIABLE, None),
        flags=readable_flags(raw.get("docker_flags") or ()),
        env=env,
    )


def readable_flags(flags: str | Sequence[str]) -> tuple[str, ...]:
    """Flags in canonical form where they can be read as flags at all, else as they are stored.

    Whatever a version holds must be shown, also what trainpack would refuse to write.
    """
    stored = (flags,) if isinstance(flags, str) else tuple(map(str, flags))
    names = re.findall(r"(?<!\S)--?([A-Za-z][\w-]*)", " ".join(stored))
    try:
        return normalise_flags(stored, allow=(*names, *SHORT.values(), *REFUSED))
    except ValueError:
        return stored
