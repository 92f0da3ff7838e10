"""`docker run` flags as data: any spelling in, one canonical element per flag out.

The spellings met in the wild are `"--gpus all"` in one element, `"--gpus=all"`, `["--gpus", "all"]`, and one
string with several flags. Given to the engine as argv, only the `=` form in one element always works.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from trainpack_entrypoint.schema import close_match


class Flag(NamedTuple):
    """One flag; a switch has no value."""

    name: str
    value: str | None = None

    def __str__(self) -> str:
        return f"--{self.name}" if self.value is None else f"--{self.name}={self.value}"


class Kind(NamedTuple):
    """What a flag does, and which values it takes.

    Attributes:
        meaning: What it does to the container, for people.
        canonical: Gives a value its one form, and raises a ValueError that says what is expected; None for a
            switch.
        repeatable: It may stand several times with several values.
    """

    meaning: str
    canonical: Callable[[str], str] | None = None
    repeatable: bool = False


def _matching(pattern: str, expected: str) -> Callable[[str], str]:
    def canonical(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"expected {expected}")
        return value

    return canonical


def _size(value: str) -> str:
    number = re.fullmatch(r"(\d+(?:\.\d+)?)([bkmgtp]?)(?:i?b)?", value.lower())
    if not number:
        raise ValueError("expected a size like 512m or 8g")
    return number[1] + number[2].removesuffix("b")


def _swap(value: str) -> str:
    return value if value == "-1" else _size(value)


def _gpus(value: str) -> str:
    bare = value.replace('"', "")
    if bare == "-1":
        return "all"
    if not re.fullmatch(r"all|\d+|(device|count|driver|capabilities)=.+", bare):
        raise ValueError("expected all, a number or device=0,1")
    # The engine reads the value as CSV: without its quotes, `device=0,1` would be two fields.
    return f'"{bare}"' if re.fullmatch(r"device=[^=,]+(,[^=,]+)+", bare) else value


def _ulimit(value: str) -> str:
    limit = re.fullmatch(r"([a-z]+)=(-1|\d+)(?::(-1|\d+))?", value)
    if not limit or limit[1] not in ULIMITS:
        raise ValueError("expected NAME=SOFT[:HARD], like memlock=-1 or nofile=1024:2048, -1 for no limit")
    name, soft, hard = limit.groups()
    if hard not in (None, "-1") and (soft == "-1" or int(soft) > int(hard)):
        raise ValueError(f"the soft limit {soft} is above the hard limit {hard}")
    return f"{name}={soft}" if hard in (None, soft) else value


def _tmpfs(value: str) -> str:
    path, _, options = value.partition(":")
    if not path.startswith("/") or ".." in path.split("/") or path == "/":
        raise ValueError("expected an absolute path inside the container, like /scratch:size=1g")
    return f"{path}:{options}" if options else path


def _capability(value: str) -> str:
    return _matching(r"[A-Z_]+", "a capability like ALL or NET_RAW")(value.upper().removeprefix("CAP_"))


ULIMITS = frozenset(
    "core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
_TEXT = _matching(r".+", "a value")
_COUNT = _matching(r"\d+", "a whole number")
_WHOLE = _matching(r"-?\d+", "a whole number")
_CPUS = _matching(r"\d+(-\d+)?(,\d+(-\d+)?)*", "numbers like 0-3 or 0,2")
KNOWN: Mapping[str, Kind] = {
    "cap-drop": Kind("takes a right of root away", _capability, repeatable=True),
    "cpu-shares": Kind("its weight when CPUs are short", _COUNT),
    "cpus": Kind("how many CPUs it may use", _matching(r"\d+(\.\d+)?|\.\d+", "a number like 1.5")),
    "cpuset-cpus": Kind("which CPUs it may use", _CPUS),
    "cpuset-mems": Kind("which memory nodes it may use", _CPUS),
    "gpus": Kind("which GPUs it sees", _gpus),
    "init": Kind("runs under the engine's own init; the image has one already"),
    "ipc": Kind(
        "whose shared memory it uses; host lifts the limit of 64 MB that data loaders run into",
        _matching("host|private|shareable|none", "host, private, shareable or none"),
    ),
    "log-driver": Kind("where the engine keeps its output", _TEXT),
    "log-opt": Kind("how the engine keeps its output", _TEXT, repeatable=True),
    "memory": Kind("how much memory it may use", _size),
    "memory-reservation": Kind("the memory that is kept for it when memory is short", _size),
    "memory-swap": Kind("memory and swap together; -1 for no limit", _swap),
    "memory-swappiness": Kind("how readily its memory is swapped, 0 to 100", _WHOLE),
    "oom-kill-disable": Kind("is not killed when it runs out of memory"),
    "oom-score-adj": Kind("how early it is killed when the host runs out of memory", _WHOLE),
    "pids-limit": Kind("how many processes it may have", _WHOLE),
    "read-only": Kind("its root file system cannot be written"),
    "rm": Kind("is removed when it has ended"),
    "runtime": Kind("the engine's runtime; nvidia gives it the GPU driver", _TEXT),
    "shm-size": Kind("its shared memory, which data loaders use", _size),
    "stop-timeout": Kind("seconds between the stop and the kill", _WHOLE),
    "tmpfs": Kind("a folder in memory", _tmpfs, repeatable=True),
    "ulimit": Kind("a limit of its processes", _ulimit, repeatable=True),
    "user": Kind("the user that it runs as", _TEXT),
}
SHORT = {
    "m": "memory",
    "u": "user",
    "v": "volume",
    "p": "publish",
    "P": "publish-all",
    "e": "env",
    "c": "cpu-shares",
    "d": "detach",
    "i": "interactive",
    "t": "tty",
    "h": "hostname",
    "w": "workdir",
    "a": "attach",
}
_MOUNTS, _NETWORK, _LAUNCHER = (
    "it mounts a folder of the host",
    "it shares or changes the network",
    "the launcher decides how it runs",
)
REFUSED = {
    "privileged": "it gives the container the whole host",
    "name": "a fixed name lets only one container run at a time",
    "hostname": "a fixed name lets only one container run at a time",
    "volume": _MOUNTS,
    "volumes-from": "it mounts the folders of another container",
    "mount": _MOUNTS,
    "device": "it opens a device of the host; GPUs come with --gpus",
    "device-cgroup-rule": "it opens devices of the host",
    "pid": "it shares the host's processes",
    "uts": "it shares the host's name",
    "userns": "it shares the host's users",
    "cgroupns": "it shares the host's control groups",
    "cgroup-parent": "it leaves the engine's control group",
    "network": _NETWORK,
    "net": _NETWORK,
    "add-host": _NETWORK,
    "dns": _NETWORK,
    "cap-add": "it gives the container more rights",
    "security-opt": "it changes how the container is confined",
    "sysctl": "it changes the kernel's settings",
    "publish": "it opens a port of the host",
    "publish-all": "it opens ports of the host",
    "detach": _LAUNCHER,
    "interactive": _LAUNCHER,
    "tty": _LAUNCHER,
    "attach": _LAUNCHER,
    "restart": _LAUNCHER,
    "stop-signal": "the entrypoint forwards SIGTERM to the script, and nothing else ends it well",
    "env": "it belongs in [run] env",
    "env-file": "it belongs in [run] env",
    "workdir": "the entrypoint decides where the script runs",
    "entrypoint": "it replaces the entrypoint that was tested",
}
_GPU_DEVICE = re.compile(r"/dev/nvidia[\w/-]*(:.*)?|nvidia\.com/gpu=.+")


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
    return tuple(sorted(map(str, parse_flags(flags, allow))))


def parse_flags(flags: str | Iterable[str], allow: Sequence[str] = ()) -> tuple[Flag, ...]:
    """The typed form of `normalise_flags`, in the order of the words.

    Raises:
        ValueError: As there.
    """
    words = [word for text in ([flags] if isinstance(flags, str) else flags) for word in _split(text)]
    result: dict[str, Flag] = {}
    problems: list[str] = []
    while words:
        word = words.pop(0)
        name, value = _name_and_value(word)
        if name is None:
            problems.append(f"{word!r} is not a flag")
            continue
        if value is None and not _is_switch(name) and words and not _is_flag(words[0]):
            value = words.pop(0)
        try:
            flag = _checked(name, value, allow)
        except ValueError as error:
            problems.append(str(error))
            continue
        if flag is None:
            continue
        slot = str(flag) if _is_repeatable(name, allow) else name
        if result.setdefault(slot, flag) != flag:
            problems.append(f"{result[slot]} and {flag} contradict each other")
    if problems:
        raise ValueError("; ".join(problems))
    return tuple(result.values())


def explain_flags(flags: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """What each canonical flag does, for people. Pure."""
    return tuple((flag, _meaning(flag.removeprefix("--").partition("=")[0], flag)) for flag in flags)


def asks_for_gpu(flags: Iterable[str]) -> bool:
    """Whether canonical flags give the container a GPU. Pure."""
    return any(
        flag.startswith("--gpus=")
        or flag == "--runtime=nvidia"
        or (flag.startswith("--device=") and _is_gpu_device("device", flag.removeprefix("--device=")))
        for flag in flags
    )


def _meaning(name: str, flag: str) -> str:
    if name in KNOWN:
        return KNOWN[name].meaning
    if _is_gpu_device(name, flag.partition("=")[2]):
        return "a GPU, by its device"
    return f"allowed by name: {REFUSED.get(name, 'trainpack does not know what it does')}"


def gpus_of(flags: Sequence[str]) -> str | None:
    """What canonical flags say of GPUs: `all`, a number or `device=0,1`; None when they ask for none. Pure.

    A runtime or a device of NVIDIA's stands for one GPU at least.
    """
    values = (flag.partition("=")[2] for flag in flags if flag.startswith("--gpus="))
    # docker wants a list of devices in quotes, which it reads as CSV.
    return next((value.strip('"') for value in values), "1" if asks_for_gpu(flags) else None)


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


def _is_switch(name: str) -> bool:
    return name in KNOWN and KNOWN[name].canonical is None


def _is_repeatable(name: str, allow: Sequence[str]) -> bool:
    return name == "device" or name in allow or (name in KNOWN and KNOWN[name].repeatable)


def _is_gpu_device(name: str, value: str | None) -> bool:
    return name == "device" and bool(_GPU_DEVICE.fullmatch(value or ""))


def _checked(name: str, value: str | None, allow: Sequence[str]) -> Flag | None:
    """The flag in canonical form, None for a switch that is said false.

    Raises:
        ValueError: What is wrong with it.
    """
    if value is not None and (re.search(r"[\s'\\]", value) or not value.isprintable()):
        raise ValueError(
            f"--{name}={value!r}: blanks, single quotes, backslashes and control characters are refused"
        )
    if _is_switch(name):
        return _switch(name, value, allow)
    if name in KNOWN:
        return _valued(name, value, allow)
    if name in allow or _is_gpu_device(name, value):
        return Flag(name, value)
    if name in REFUSED:
        raise ValueError(f"--{name} is refused: {REFUSED[name]}")
    raise ValueError(f"--{name} is unknown{close_match(name, sorted(KNOWN))}")


def _switch(name: str, value: str | None, allow: Sequence[str]) -> Flag | None:
    if value not in (None, "true", "false") and name not in allow:
        raise ValueError(f"--{name} takes no value, got {value!r}")
    return None if value == "false" else Flag(name)


def _valued(name: str, value: str | None, allow: Sequence[str]) -> Flag:
    canonical = KNOWN[name].canonical
    if not value or canonical is None:
        if name in allow:
            return Flag(name, value)
        raise ValueError(f"--{name} needs a value, like --{name}=VALUE")
    try:
        return Flag(name, canonical(value))
    except ValueError as error:
        if name in allow:
            return Flag(name, value)
        raise ValueError(f"--{name}={value}: {error}") from None
