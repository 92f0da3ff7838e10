"""Object storage as an S3 connector: presigned forms, parts, and downloads."""

from __future__ import annotations

import base64
import hashlib
import re
import zlib
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from .routes import Call, Raw, Route, lookup, require_organization
from .schemas import (
    BOOLEAN,
    COUNT,
    NAME,
    OBJECT,
    OBJECT_TYPES,
    Field,
    RefusedError,
    one_of,
    optional,
    problems,
)
from .state import Grant, State, StoredFile, Upload, new_id

CONTEXT = {
    "MODEL_FILE": ("model_version_id",),
    "MODEL_THUMB": ("model_version_id",),
    "ARTIFACT": ("experiment_id",),
    "LOG_IMAGE": ("experiment_id",),
    "LOGGING": ("experiment_id", "job_id"),
}
FILE_ROW = {"name": NAME, "filename": NAME, "object_name": NAME, "large": BOOLEAN}
SMALLEST_PART = 5 * 1024 * 1024  # S3's own limit for every part but the last
_PART = {"ETag": NAME, "PartNumber": COUNT}
_PARTS = Field(
    "a list of parts",
    lambda value: isinstance(value, list) and not any(problems(part, _PART) for part in value),
)


def uploaded(state: State, object_name: str) -> bytes:
    """The content of an object.

    Raises:
        RefusedError: 400 when nothing was uploaded under this name.
    """
    if object_name not in state.objects:
        raise RefusedError(400, "Object not found", f"nothing was uploaded as {object_name!r}")
    return state.objects[object_name]


def new_file(call: Call) -> StoredFile:
    """The file that a row's body describes; its object must be there."""
    data = uploaded(call.state, call.body["object_name"])
    return StoredFile(id=new_id(), data=data, **call.body)


def file_row(call: Call, file: StoredFile) -> dict[str, Any]:
    """A file or artifact as the platform answers it, with a fresh URL."""
    return {
        "id": file.id,
        "name": file.name,
        "filename": file.filename,
        "object_name": file.object_name,
        "large": file.large,
        "presigned_url": sign(call, Grant("get", file.object_name)),
    }


def sign(call: Call, grant: Grant) -> str:
    """A URL that allows one operation, without a token."""
    signature = new_id()
    call.state.grants[signature] = grant
    return f"{call.base}/storage/{quote(grant.object_name)}?signature={signature}"


def _object_name(call: Call) -> dict[str, str]:
    require_organization(call)
    _require_connector(call)
    kind, context = call.body["type"], call.body.get("context")
    if kind == "DATA" and context is None:
        return {"object_name": _generate(call.state, "data")}
    context = context or {}
    key = next(iter(context), "")
    if len(context) != 1 or key not in CONTEXT.get(kind, ()):
        raise RefusedError(
            400, "Invalid request", f"the context of {kind} is {' or '.join(CONTEXT.get(kind, ('none',)))}"
        )
    owners: dict[str, Any] = {
        "model_version_id": call.state.versions,
        "experiment_id": call.state.experiments,
        "job_id": call.state.jobs,
    }
    lookup(owners[key], context[key], key)
    folder = f"{kind.lower()}/{context[key]}"
    return {"object_name": _generate(call.state, folder, f"/{call.body['filename']}")}


def _generate(state: State, folder: str, filename: str = "") -> str:
    name = f"{state.organization_id}/{folder}/{new_id()}{filename}"
    state.object_names.add(name)
    return name


def _presigned_form(call: Call) -> dict[str, Any]:
    name = _generated(call)
    url = sign(call, Grant("form", name, content_type=call.body["content_type"]))
    address, _, signature = url.partition("?signature=")
    fields = {"key": name, "x-amz-signature": signature}
    return {"client_type": "aws", "presigned_url_data": {"url": address, "fields": fields}}


def _begin_parts(call: Call) -> dict[str, str]:
    upload_id = new_id()
    call.state.uploads[upload_id] = Upload(_generated(call))
    return {"client_type": "aws", "upload_id": upload_id}


def _part_url(call: Call) -> dict[str, str]:
    upload_id, part = call.body["upload_id"], call.body["part_no"]
    _upload(call)
    return {"url": sign(call, Grant("part", call.body["object_name"], upload_id=upload_id, part=part))}


def _complete_parts(call: Call) -> dict[str, str]:
    upload = _upload(call)
    wanted = [(part["PartNumber"], part["ETag"]) for part in call.body["parts"]]
    have = [(number, _etag(content)) for number, content in sorted(upload.parts.items())]
    if wanted != have or not have:
        raise RefusedError(400, "InvalidPart", "the parts are not those that were uploaded, in order")
    contents = [content for _, content in sorted(upload.parts.items())]
    if any(len(content) < SMALLEST_PART for content in contents[:-1]):
        raise RefusedError(400, "EntityTooSmall", f"a part but the last is below {SMALLEST_PART} bytes")
    call.state.objects[upload.object_name] = b"".join(contents)
    del call.state.uploads[call.body["upload_id"]]
    return {"object_name": upload.object_name}


def _retrieve_url(call: Call) -> dict[str, str]:
    _require_connector(call)
    uploaded(call.state, call.body["object_name"])
    return {"presigned_url": sign(call, Grant("get", call.body["object_name"]))}


def _receive_form(call: Call) -> Raw:
    form = parse_form(call.headers.get("content-type", ""), call.content)
    text = {name: value.decode() for name, value in form.items() if name != "file"}
    grant = _granted(call, "form", text.get("x-amz-signature", ""))
    expected = {"key": grant.object_name, "Content-Type": grant.content_type}
    if any(text.get(name) != value for name, value in expected.items()) or "file" not in form:
        raise RefusedError(403, "AccessDenied", "the form is not the one that was signed")
    call.state.objects[grant.object_name] = form["file"]
    return Raw(204, headers={"ETag": _etag(form["file"])})


def _receive_part(call: Call) -> Raw:
    grant = _granted(call, "part", call.query.get("signature", ""))
    call.state.uploads[grant.upload_id].parts[grant.part] = call.content
    return Raw(200, headers={"ETag": _etag(call.content)})


def _download(call: Call) -> Raw:
    unsigned = [name for name in call.headers if name.startswith("x-amz-")]
    if unsigned:
        raise RefusedError(403, "AccessDenied", f"headers that were not signed: {unsigned}")
    grant = _granted(call, "get", call.query.get("signature", ""))
    if grant.object_name not in call.state.objects:
        raise RefusedError(404, "NoSuchKey", grant.object_name)
    content = call.state.objects[grant.object_name]
    etag = _etag(content)
    if call.headers.get("if-none-match") == etag:
        return Raw(304, headers={"ETag": etag})
    is_same = call.headers.get("if-range", etag) == etag
    whole = {"Content-Type": "application/octet-stream", "ETag": etag, "Accept-Ranges": "bytes"}
    answer = Raw(200, content, whole | _checksum_headers(call.state.checksums, content))
    if is_same and "range" in call.headers:
        answer = _part(call.headers["range"], answer)
    if not call.state.etags:
        answer = replace(answer, headers={k: v for k, v in answer.headers.items() if k != "ETag"})
    return replace(answer, pause=call.state.body_delay)


def _part(wanted: str, whole: Raw) -> Raw:
    """One range of an object; storage ignores what it does not understand."""
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted)
    if match is None:
        return whole
    size = len(whole.content)
    first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if first >= size:
        return Raw(416, b"InvalidRange", {"Content-Range": f"bytes */{size}"})
    # The checksum of the whole says nothing of a part, except where storage says so.
    headers = {
        name: value for name, value in whole.headers.items() if not name.startswith(("x-amz-", "content-md5"))
    }
    headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    return Raw(206, whole.content[first : last + 1], headers)


def _checksum_headers(wanted: set[str], content: bytes) -> dict[str, str]:
    md5 = _base64(hashlib.md5(content, usedforsecurity=False).digest())
    known = {
        "content-md5": md5,
        "x-goog-hash": f"crc32c=AAAAAA==,md5={md5}",
        "x-amz-checksum-sha256": _base64(hashlib.sha256(content).digest()),
        "x-amz-checksum-crc32": _base64(zlib.crc32(content).to_bytes(4, "big")),
    }
    return {name: value for name, value in known.items() if name in wanted}


def _base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def parse_form(content_type: str, content: bytes) -> dict[str, bytes]:
    """The fields of a `multipart/form-data` body.

    Raises:
        RefusedError: 400 when it is none.
    """
    boundary = re.fullmatch(r"multipart/form-data; *boundary=\"?([^\";]+)\"?", content_type)
    if boundary is None:
        raise RefusedError(400, "MalformedPOSTRequest", f"not a form: {content_type!r}")
    parts = (b"\r\n" + content).split(b"\r\n--" + boundary[1].encode())
    fields: dict[str, bytes] = {}
    for part in parts[1:-1]:
        head, _, body = part.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        name = re.search(rb'name="([^"]*)"', head)
        if name is None:
            raise RefusedError(400, "MalformedPOSTRequest", "a part has no name")
        fields[name[1].decode()] = body
    return fields


def _granted(call: Call, operation: str, signature: str) -> Grant:
    if "authorization" in call.headers:
        raise RefusedError(400, "InvalidArgument", "only one auth mechanism allowed")
    grant = call.state.grants.get(signature)
    if grant is None or (grant.operation, grant.object_name) != (operation, call.ids["object"]):
        raise RefusedError(403, "AccessDenied", "the URL is not signed for this, or has expired")
    return grant


def _upload(call: Call) -> Upload:
    _require_connector(call)
    upload = call.state.uploads.get(call.body["upload_id"])
    if upload is None or upload.object_name != call.body["object_name"]:
        raise RefusedError(404, "NoSuchUpload", "no such upload of this object")
    return upload


def _generated(call: Call) -> str:
    _require_connector(call)
    name: str = call.body["object_name"]
    if name not in call.state.object_names:
        raise RefusedError(400, "Invalid request", f"{name!r} is not a generated object name")
    return name


def _require_connector(call: Call) -> None:
    if call.ids["connector"] != call.state.connector_id:
        raise RefusedError(404, "Connector not found", call.ids["connector"])


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


_STORAGE = "/api/object-storage/{connector}"
_START = {"object_name": NAME, "content_type": NAME}
_PART_OF = {"object_name": NAME, "upload_id": NAME}
ROUTES = (
    Route(
        "POST",
        "/api/organization/{organization}/connector/{connector}/generate_object_name",
        _object_name,
        body={"filename": NAME, "type": one_of(OBJECT_TYPES), "context": optional(OBJECT)},
    ),
    Route("POST", f"{_STORAGE}/generate_presigned_url", _presigned_form, body=_START),
    Route("POST", f"{_STORAGE}/init_multipart_upload", _begin_parts, body=_START),
    Route("POST", f"{_STORAGE}/generate_part_presigned_url", _part_url, body={**_PART_OF, "part_no": COUNT}),
    Route("POST", f"{_STORAGE}/complete_part_upload", _complete_parts, body={**_PART_OF, "parts": _PARTS}),
    Route("POST", f"{_STORAGE}/retrieve_presigned_url", _retrieve_url, body={"object_name": NAME}),
    Route("POST", "/storage/{object:path}", _receive_form, public=True),
    Route("PUT", "/storage/{object:path}", _receive_part, query=("signature",), public=True),
    Route("GET", "/storage/{object:path}", _download, query=("signature",), public=True),
)
