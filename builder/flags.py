"""`docker run` flags as data: any spelling in, one canonical element per flag out.

The spellings met in the wild are `"--gpus all"` in one element, `"--gpus=all"`, `["--gpus", "all"]`, and one
string with several flags. Given to the engine as argv, only the `=` form in one element always works.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from trainpack_entrypoint.schema import close_match

TAKES_VALUE = frozenset(
    "cap-drop cpu-shares cpus cpuset-cpus gpus ipc log-opt memory memory-reservation memory-swap "
    "oom-score-adj pids-limit runtime shm-size stop-timeout tmpfs ulimit user".split()
)
SWITCHES = frozenset("init oom-kill-disable read-only rm".split())
SHORT = {
    "m": "memory",
    "u": "user",
    "v": "volume",
    "p": "publish",
    "e": "env",
    "c": "cpu-shares",
    "d": "detach",
}
REFUSED = {
    "privileged": "it gives the container the whole host",
    "name": "a fixed name lets only one container run at a time",
    "volume": "it mounts a folder of the host",
    "mount": "it mounts a folder of the host",
    "device": "it opens a device of the host; GPUs come with --gpus",
    "pid": "it shares the host's processes",
    "network": "it shares or changes the network",
    "net": "it shares or changes the network",
    "cap-add": "it gives the container more rights",
    "security-opt": "it changes how the container is confined",
    "publish": "it opens a port of the host",
    "detach": "the launcher decides how it runs",
    "env": "it belongs in [run] env",
    "entrypoint": "it replaces the entrypoint that was tested",
}


def normalise_flags(flags: str | Iterable[str], allow: Sequence[str] = ()) -> tuple[str, ...]:
    """The canonical form: `--name=value` or `--switch`, sorted, without duplicates.

    Args:
        flags: In any of the spellings above.
        allow: Names of refused or unknown flags to let through, without dashes.

    Raises:
        ValueError: Not a flag, unknown, without its value, or dangerous and not allowed; all at once.
    """
    words = [word for text in ([flags] if isinstance(flags, str) else flags) for word in _split(text)]
    result: set[str] = set()
    problems: list[str] = []
    while words:
        word = words.pop(0)
        if not word.startswith("-") or word.strip("-") == "":
            problems.append(f"{word!r} is not a flag")
            continue
        name, equals, value = word.lstrip("-").partition("=")
        name = SHORT.get(name, name)
        if not equals and name not in SWITCHES and words and not words[0].startswith("-"):
            equals, value = "=", words.pop(0)
        problems += _objections(name, equals, allow)
        result.add(f"--{name}{equals}{value}")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(sorted(result))


def _split(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into flags: {error}") from None


def _objections(name: str, equals: str, allow: Sequence[str]) -> list[str]:
    if name in allow:
        return []
    if name in REFUSED:
        return [f"--{name} is refused: {REFUSED[name]}"]
    if name not in TAKES_VALUE | SWITCHES:
        return [f"--{name} is unknown{close_match(name, sorted(TAKES_VALUE | SWITCHES))}"]
    if name in TAKES_VALUE and not equals:
        return [f"--{name} needs a value, like --{name}=VALUE"]
    return []
