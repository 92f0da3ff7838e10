"""`/_standin/…`: how a test in another process fills, breaks and reads the stand-in; not the platform's."""

from __future__ import annotations

from typing import Any

from .routes import Call, Raw, Route
from .schemas import (
    BOOLEAN,
    COUNT,
    NAME,
    STRING_MAP,
    STRINGS,
    Field,
    is_number,
    nullable,
    one_of,
    optional,
)
from .storage import uploaded

_ENTRIES = Field("a list of objects", lambda value: isinstance(value, list))


def _state(call: Call) -> dict[str, Any]:
    return call.state.dump()


def _seed(call: Call) -> dict[str, list[str]]:
    return call.state.seed(call.body)


def _fail(call: Call) -> dict[str, Any]:
    call.state.fail(**call.body)
    return {}


def _delay(call: Call) -> dict[str, Any]:
    call.state.delay = call.body.get("seconds", call.state.delay)
    call.state.body_delay = call.body.get("body", call.state.body_delay)
    return {}


def _checksums(call: Call) -> dict[str, Any]:
    call.state.checksums = set(call.body["headers"])
    return {}


def _expire(call: Call) -> dict[str, Any]:
    call.state.expire_urls()
    return {}


def _revoke(call: Call) -> dict[str, str]:
    return {"token": call.state.revoke()}


def _object(call: Call) -> Raw:
    content = uploaded(call.state, call.ids["object"])
    return Raw(200, content, {"Content-Type": "application/octet-stream"})


_FAULT = {
    "method": NAME,
    "path_regex": NAME,
    "status": optional(COUNT),
    "times": nullable(COUNT),
    "headers": optional(STRING_MAP),
    "after": optional(BOOLEAN),
    "message": optional(NAME),
    "cut": optional(one_of(["request", "answer"])),
    "cut_after": optional(COUNT),
    "corrupt": optional(BOOLEAN),
}
_SECONDS = optional(Field("a number of seconds", is_number))
ROUTES = (
    Route("GET", "/_standin/state", _state, public=True),
    Route(
        "POST",
        "/_standin/seed",
        _seed,
        body={kind: optional(_ENTRIES) for kind in ("versions", "datasets", "experiments", "jobs")},
        public=True,
    ),
    Route("POST", "/_standin/fail", _fail, body=_FAULT, public=True),
    Route(
        "POST",
        "/_standin/delay",
        _delay,
        body={"seconds": _SECONDS, "body": _SECONDS},
        public=True,
    ),
    Route("POST", "/_standin/checksums", _checksums, body={"headers": STRINGS}, public=True),
    Route("POST", "/_standin/expire", _expire, body={}, public=True),
    Route("POST", "/_standin/revoke", _revoke, public=True),
    Route("GET", "/_standin/objects/{object:path}", _object, public=True),
)
