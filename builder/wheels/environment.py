"""A Python environment of the image, and the few files that make a folder one."""

from __future__ import annotations

from dataclasses import dataclass

from builder.oci import tar


@dataclass(frozen=True)
class Environment:
    """A Python environment of the image.

    Attributes:
        prefix: Its folder, `/opt/venv`.
        python: The minor version, `3.11`.
    """

    prefix: str
    python: str

    @property
    def interpreter(self) -> str:
        """What its scripts run with. Short enough for any kernel's limit on the first line of a script."""
        return f"{self.prefix}/bin/python"

    @property
    def folder(self) -> str:
        """The prefix as a path below the image's root."""
        return self.prefix.strip("/")

    @property
    def site_packages(self) -> str:
        """Where packages lie, as a path below the image's root."""
        return f"{self.folder}/lib/python{self.python}/site-packages"

    def skeleton(self, home: str) -> list[tar.Entry]:
        """What makes a folder an environment: https://docs.python.org/3/library/site.html.

        Args:
            home: The folder of the base's interpreter, `/usr/bin`.
        """
        settings = f"home = {home}\ninclude-system-site-packages = false\nversion = {self.python}\n"
        return [
            tar.file(f"{self.folder}/pyvenv.cfg", settings.encode()),
            tar.link(f"{self.folder}/bin/python", f"{home}/python3"),
            tar.link(f"{self.folder}/bin/python3", "python"),
            tar.link(f"{self.folder}/bin/python{self.python}", "python"),
            tar.link(f"{self.folder}/lib64", "lib"),
            tar.folder(self.site_packages),
        ]
