"""`docker run` flags as data: any spelling in, one canonical element per flag out.

The spellings met in the wild are `"--gpus all"` in one element, `"--gpus=all"`, `["--gpus", "all"]`, and one
string with several flags. Given to the engine as argv, only the `=` form in one element always works.
"""

from __future__ import annotations

import re
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
    "i": "interactive",
    "t": "tty",
}
REPEATABLE = frozenset("cap-drop log-opt tmpfs ulimit".split())
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
    "interactive": "the launcher decides how it runs",
    "tty": "the launcher decides how it runs",
    "env": "it belongs in [run] env",
    "entrypoint": "it replaces the entrypoint that was tested",
}


def normalise_flags(flags: str | Iterable[str], allow: Sequence[str] = ()) -> tuple[str, ...]:
    """The canonical form: `--name=value` or `--switch`, sorted, without duplicates.

    Args:
        flags: In any of the spellings above. Text with blanks, single quotes or backslashes is read as a
            shell would; other text is one flag, verbatim.
        allow: Names of refused or unknown flags to let through, without dashes.

    Raises:
        ValueError: Not a flag, unknown, without its value, contradictory, or dangerous and not allowed; all
            at once.
    """
    words = [word for text in ([flags] if isinstance(flags, str) else flags) for word in _split(text)]
    result: dict[str, str] = {}
    problems: list[str] = []
    while words:
        word = words.pop(0)
        name, value = _name_and_value(word)
        if name is None:
            problems.append(f"{word!r} is not a flag")
            continue
        if value is None and name not in SWITCHES and words and not _is_flag(words[0]):
            value = words.pop(0)
        problems += _objections(name, value, allow)
        if name in SWITCHES and value is not None:
            if value == "false":
                continue
            value = None
        flag = f"--{name}" if value is None else f"--{name}={value}"
        slot = flag if name in REPEATABLE or name in allow else name
        if result.setdefault(slot, flag) != flag:
            problems.append(f"{result[slot]} and {flag} contradict each other")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(sorted(result.values()))


def gpus_of(flags: Iterable[str]) -> str | None:
    """What canonical flags say of GPUs: `all`, a number or `device=0,1`; None when they ask for none."""
    values = (flag.partition("=")[2] for flag in flags if flag.startswith("--gpus="))
    # docker wants a list of devices in quotes, which it reads as CSV.
    return next((value.strip('"') for value in values), None)


def _split(text: str) -> list[str]:
    # Verbatim where possible: `--gpus="device=0,1"` needs its double quotes, the engine reads them as CSV.
    if not re.search(r"[\s'\\]", text):
        return [text]
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be split into flags: {error}") from None


def _is_flag(word: str) -> bool:
    return word.startswith("-") and not re.fullmatch(r"-[0-9.]+", word)


def _name_and_value(word: str) -> tuple[str | None, str | None]:
    if long := re.fullmatch(r"--([A-Za-z][A-Za-z0-9-]*)(?:=(.*))?", word, re.DOTALL):
        return long[1], long[2]
    if short := re.fullmatch(r"-([A-Za-z])(?:=?(.+))?", word, re.DOTALL):
        return SHORT.get(short[1], short[1]), short[2]
    return None, None


def _objections(name: str, value: str | None, allow: Sequence[str]) -> list[str]:
    if value is not None and (re.search(r"[\s'\\]", value) or not value.isprintable()):
        return [f"--{name}={value!r}: blanks, single quotes, backslashes and control characters are refused"]
    if name in allow:
        return []
    if name in REFUSED:
        return [f"--{name} is refused: {REFUSED[name]}"]
    if name not in TAKES_VALUE | SWITCHES:
        return [f"--{name} is unknown{close_match(name, sorted(TAKES_VALUE | SWITCHES))}"]
    if name in SWITCHES:
        return [] if value in (None, "true", "false") else [f"--{name} takes no value, got {value!r}"]
    return [] if value else [f"--{name} needs a value, like --{name}=VALUE"]
