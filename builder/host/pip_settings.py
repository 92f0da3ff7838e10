"""What pip is told on this machine: its configuration files and variables. Imports next to nothing.

Source: https://pip.pypa.io/en/stable/topics/configuration/.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path


def pip_values(environ: Mapping[str, str]) -> dict[str, str]:
    """What `pip install` obeys: later files win, `[install]` over `[global]`, variables over both."""
    sections: dict[str, dict[str, str]] = {"global": {}, "install": {}}
    for path in filter(os.path.isfile, _files(environ)):
        for section, values in _ini(path).items():
            sections[section] |= values
    prefix = "PIP_"
    variables = {
        name.removeprefix(prefix).lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith(prefix) and value
    }
    return sections["global"] | sections["install"] | variables


def home_folder(environ: Mapping[str, str]) -> Path:
    """The user's home, as the environment says it."""
    return Path(environ.get("HOME") or Path.home())


def _ini(path: Path) -> dict[str, dict[str, str]]:
    import configparser  # noqa: PLC0415  (most machines have no such file)

    parser = configparser.RawConfigParser()
    try:
        parser.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return {}
    return {
        section: {key.replace("_", "-"): value for key, value in parser[section].items()}
        for section in ("global", "install")
        if parser.has_section(section)
    }


def _files(environ: Mapping[str, str]) -> Iterator[Path]:
    """The configuration files of pip, the weakest first."""
    named = environ.get("PIP_CONFIG_FILE")
    if named == os.devnull:
        return
    home = home_folder(environ)
    for folder in (environ.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(":"):
        yield Path(folder) / "pip" / "pip.conf"
    yield from (Path("/Library/Application Support/pip/pip.conf"), Path("/etc/pip.conf"))
    if not (named and Path(named).exists()):
        yield home / ".pip" / "pip.conf"
        yield Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "pip" / "pip.conf"
        yield home / "Library" / "Application Support" / "pip" / "pip.conf"
    yield Path(environ.get("VIRTUAL_ENV") or sys.prefix) / "pip.conf"
    if named:
        yield Path(named)
