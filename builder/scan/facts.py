"""What a scan finds, each fact with its place and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from trainpack_entrypoint.schema import Parameter

if TYPE_CHECKING:
    from builder.models.records import Framework  # an edited script is scanned by a build without pydantic


@dataclass(frozen=True, kw_only=True)
class Fact:
    """Something read off the source.

    Attributes:
        file: Path relative to the project's folder.
        line: 1-based.
        reason: Why it is believed.
    """

    file: str
    line: int
    reason: str

    @property
    def place(self) -> str:
        """`train.py:12`."""
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, kw_only=True)
class Import(Fact):
    """A module that is neither of the standard library nor of the project.

    Attributes:
        module: The dotted name, as far as the import spells it out.
        need: `always`; `conditional` under an `if`; `optional` where the script copes without it; `typing`
            where only a type checker follows it.
    """

    module: str
    need: Literal["always", "conditional", "optional", "typing"]

    @property
    def package(self) -> str:
        """The top-level name."""
        return self.module.partition(".")[0]


@dataclass(frozen=True, kw_only=True)
class ScannedParameter(Fact):
    """A command-line option of the script.

    Attributes:
        default: What the script itself uses; None also where that is not known, so that nothing is passed.
        argument: The option that carries the value; None where the option can only say false.
        check: What a person should look at, None when the source leaves no doubt.
    """

    name: str
    type: str
    default: Any = None
    required: bool = False
    choices: tuple[Any, ...] | None = None
    argument: str | None = None
    argument_false: str | None = None
    help: str | None = None
    check: str | None = None

    @property
    def parameter(self) -> Parameter:
        """The parameter as image and entrypoint know it."""
        return Parameter(
            name=self.name,
            type=self.type,
            default=self.default,
            required=self.required,
            optional=self.default is None and not self.required,
            choices=self.choices,
            argument=self.argument,
            argument_false=self.argument_false,
            help=self.help,
        )


@dataclass(frozen=True, kw_only=True)
class Positional(Fact):
    """A positional argument: no option carries it, so that it has to be a fixed argument."""

    name: str
    required: bool
    help: str | None = None


@dataclass(frozen=True, kw_only=True)
class Note(Fact):
    """Something that was seen and could not be turned into a fact of its own."""


@dataclass(frozen=True, kw_only=True)
class ScriptFacts:
    """Everything a scan found.

    Attributes:
        script: Path relative to the project's folder.
        files: Every file that was read, the script first.
        framework_reason: Why the framework is what it is.
        arguments: How the script takes its parameters: as options, or as Hydra's overrides.
    """

    script: str
    files: tuple[str, ...]
    imports: tuple[Import, ...]
    parameters: tuple[ScannedParameter, ...]
    positionals: tuple[Positional, ...]
    framework: Framework
    framework_reason: str
    notes: tuple[Note, ...]
    arguments: Literal["argv", "overrides"] = "argv"


def option_names(facts: ScriptFacts) -> dict[str, tuple[str | None, str | None]]:
    """Parameter → (the option that carries its value, the option that says false)."""
    return {found.name: (found.argument, found.argument_false) for found in facts.parameters}
