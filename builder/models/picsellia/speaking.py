"""What the SDK raises, as errors that can be told; no token and no signed address is in any of them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import requests

from builder.errors import NotFoundError, StoreError, TrainpackError
from builder.models.transport import NoAnswerError

LONGEST_MESSAGE = 300  # characters of an answer that are shown: a proxy's error page is one long answer
_SILENT = "check the host and the network: `trainpack doctor`"
_LATER = "try again later"


class LostAnswerError(StoreError):
    """The platform failed in a way that leaves open whether the request took effect."""


class TakenError(StoreError):
    """The platform has another object of this name."""


def sdk() -> Any:
    """The SDK, kept from writing to standard output and error.

    Raises:
        StoreError: It is not installed.
    """
    # Without these, importing it reconfigures the root logger, and whatever takes a while shows a bar.
    os.environ.setdefault("PICSELLIA_SDK_CUSTOM_LOGGING", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    # Its errors are raised too, where they can be told; a logger without handlers would print them.
    logging.getLogger("picsellia").addHandler(logging.NullHandler())
    try:
        import picsellia  # noqa: PLC0415  (0.8 s, and an optional dependency)
        import picsellia.exceptions  # noqa: PLC0415
    except ImportError as error:
        raise StoreError(
            f"the Picsellia SDK cannot be imported: {error}", remedy="pip install 'trainpack[picsellia]'"
        ) from None
    return picsellia


@contextmanager
def translated(host: str, token: str) -> Iterator[None]:
    """Turn what the SDK raises into a StoreError; the token is in no message and no chained traceback.

    Raises:
        StoreError: In place of what the SDK raises.
    """
    try:
        yield
    except TrainpackError:
        raise
    except (requests.RequestException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _as_store_error(error, host, token) from None
    except Exception as error:
        if not isinstance(error, sdk().exceptions.PicselliaError):
            raise
        raise _as_store_error(_root(error), host, token) from None


@contextmanager
def having(done: str, kind: type[StoreError] = StoreError, *, written: bool | None = True) -> Iterator[None]:
    """Tell what fails from here on together with what was done already.

    Args:
        written: What the error says of the write.

    Raises:
        StoreError: What was raised, with what was done in front.
    """
    try:
        yield
    except kind as error:
        told = StoreError(
            f"{done}; then: {error.message}",
            place=error.place,
            remedy=error.remedy,
            details=error.details,
        )
        told.written = written
        raise told from None


def in_doubt(what: str) -> AbstractContextManager[None]:
    """Tell that a write whose answer was lost may have taken effect.

    Raises:
        StoreError: The answer was lost, with what may have happened.
    """
    return having(f"it is not known whether {what}", LostAnswerError, written=None)


@contextmanager
def undone(what: str, undo: Callable[[], None]) -> Iterator[None]:
    """Undo what was made when something fails from here on; what cannot be undone is told.

    Raises:
        StoreError: What was raised, with what is left over.
    """
    try:
        yield
    except BaseException as error:
        try:
            undo()
        except NotFoundError:
            pass
        except StoreError as second:
            told = StoreError(
                f"{getattr(error, 'message', None) or type(error).__name__}; and {what} is left over",
                place=second.place,
                remedy=f"remove it on the platform: it could not be removed: {second.message}",
            )
            told.written = getattr(error, "written", None)
            raise told from None
        raise


def _root(error: Exception) -> BaseException:
    """What happened below the SDK's constructor, which wraps every failure of its first request."""
    wrapped = str(error).startswith("Cannot connect to the platform")
    return error.__context__ if wrapped and error.__context__ is not None else error


def _as_store_error(error: BaseException, host: str, token: str) -> StoreError:
    if isinstance(error, requests.HTTPError):
        return _storage_error(error, host)
    text = shown(str(error), token)
    if text.startswith("[5"):  # 503 and 504: the SDK's base exception, the status in its text only
        error = sdk().exceptions.InternalServerError(text)
    for kinds, made, message, remedy in _translations():
        if isinstance(error, kinds):
            return made(f"{message}{text}", place=host, remedy=remedy)
    return StoreError(
        f"the answer is not what the SDK expects ({type(error).__name__})",
        place=host,
        remedy="check that the host is a Picsellia platform",
    )


def shown(text: str, token: str) -> str:
    """A text of the platform as it may be printed: short, without the token and what signs an address."""
    unsigned = re.sub(r"(https?://[^\s?'\"]+)\?[^\s'\")]+", r"\1?***", text.replace(token, "***"))
    return " ".join(unsigned.split())[:LONGEST_MESSAGE]


def _storage_error(error: requests.HTTPError, host: str) -> StoreError:
    """Object storage said no; its own text names the signed address, which is a permission."""
    status = error.response.status_code if error.response is not None else 0
    kind = LostAnswerError if status in (0, 429) or status >= 500 else StoreError
    return kind(f"the object storage answers {status}", place=host, remedy=_LATER)


def _translations() -> tuple[tuple[Any, type[StoreError], str, str | None], ...]:
    """The first line that fits: what the SDK raises, what it becomes, how its message starts, the remedy."""
    raised = sdk().exceptions
    refused = (raised.UnauthorizedError, raised.ForbiddenError)
    failed = (raised.InternalServerError, raised.BadGatewayError)
    broken = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return (
        (refused, StoreError, "the platform refused the token: ", "run `trainpack login`"),
        (raised.ResourceNotFoundError, NotFoundError, "", None),
        (raised.ResourceConflictError, TakenError, "the name is taken: ", "choose another name"),
        (raised.NoConnectorFound, StoreError, "", "connect an object storage on the platform"),
        (NoAnswerError, LostAnswerError, "the platform does not answer: ", _SILENT),
        (broken, LostAnswerError, "the platform does not answer: ", _SILENT),
        (raised.TooManyRequestError, StoreError, "the platform is overloaded: ", _LATER),
        (failed, LostAnswerError, "the platform failed: ", _LATER),
        (raised.PicselliaError, StoreError, "the platform refused the request: ", None),
    )
