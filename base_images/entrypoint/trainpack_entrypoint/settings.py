"""What the environment says of how a run is conducted: the `TRAINPACK_…` variables but parameters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Settings(NamedTuple):
    """How a run is conducted.

    Attributes:
        grace: Seconds between a forwarded signal and SIGKILL.
        connect_timeout: Seconds to wait at the start for a platform, or a download, from which nothing comes.
        save_timeout: Seconds that a failing platform is tried for at the end.
        log_limit: Bytes of the log that are kept until the end.
        gpus: How many GPUs are asked for at least.
    """

    grace: float = 7.0
    connect_timeout: float = 300.0
    save_timeout: float = 300.0
    log_limit: int = 1 << 30
    gpus: int = 0


def read_settings(environment: Mapping[str, str], image_gpus: str | None, problems: list[str]) -> Settings:
    """The settings of a container, with the default for what is missing or malformed.

    Args:
        image_gpus: What the image's own flags ask for: `all`, a number, `device=…`.
        problems: Takes what is malformed.
    """
    default = Settings()
    return Settings(
        grace=_seconds(environment, "TRAINPACK_GRACE", default.grace, problems),
        connect_timeout=_seconds(environment, "TRAINPACK_CONNECT_TIMEOUT", default.connect_timeout, problems),
        save_timeout=_seconds(environment, "TRAINPACK_SAVE_TIMEOUT", default.save_timeout, problems),
        log_limit=_bytes(environment, "TRAINPACK_LOG_LIMIT", default.log_limit, problems),
        gpus=_gpus(environment.get("TRAINPACK_GPUS"), image_gpus, problems),
    )


def _seconds(environment: Mapping[str, str], name: str, default: float, problems: list[str]) -> float:
    text = environment.get(name)
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = -1.0
    if 0 <= seconds <= 1e9:
        return seconds
    problems.append(f"{name}: {text!r} is not a number of seconds")
    return default


def _bytes(environment: Mapping[str, str], name: str, default: int, problems: list[str]) -> int:
    text = environment.get(name)
    if text and not text.isdecimal():
        problems.append(f"{name}: {text!r} is not a number of bytes")
        return default
    return int(text) if text else default


def _gpus(asked: str | None, image_gpus: str | None, problems: list[str]) -> int:
    if not asked and image_gpus is None:
        return 0
    from trainpack_entrypoint.gpu.check import wanted

    # The image's own flag was accepted when it was built: an engine knows more forms of it.
    return wanted(asked, problems) if asked else wanted(str(image_gpus), [])
