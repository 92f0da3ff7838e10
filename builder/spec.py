"""`trainpack.toml` beside the script: what the user declares, as a TrainingSpec."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from trainpack_entrypoint.schema import NAME, TYPES, Parameter, close_match, parse_labelmap, type_of

from builder.errors import SpecError, UsageError
from builder.flags import normalise_flags
from builder.models.records import Framework, InferenceType
from builder.places import FORMS, Place, parse_place
from builder.reference import parse_repository

FILE = "trainpack.toml"


def _one_line(value: str) -> str:
    control = re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", value)
    if control:
        raise ValueError(f"{value!r} holds the control character {control[0]!r}; expected one line of text")
    return value


def _relative(value: str) -> str:
    path = PurePosixPath(_one_line(value))
    if not value or path.is_absolute() or ".." in path.parts or "\\" in value:
        raise ValueError(f"{value!r} is not a path inside the folder of {FILE}")
    return str(path)


def _base(value: str) -> str:
    try:
        own_base(_one_line(value))
    except UsageError as error:
        raise ValueError(
            f"{error.message}; expected auto, a base of the catalogue, or one of your own: {FORMS}"
        ) from None
    return value


def own_base(base: str) -> Place | None:
    """Where the base is that `[image] base` names; None for `auto` and what is a name of the catalogue.

    Raises:
        UsageError: It can be neither.
    """
    return None if CATALOGUE_NAME.fullmatch(base) else parse_place(base)


def _matching(pattern: str, expected: str) -> AfterValidator:
    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(f"{value!r} is not {expected}")
        return value

    return AfterValidator(check)


def _version(value: str) -> str:
    # The version opens the tag `<version>-<12 hex>`: what a tag cannot hold is refused.
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}", value):
        raise ValueError(f"{value!r} is not a version that a tag can hold, like 1.2.0")
    if value == "latest":
        raise ValueError("'latest' is not a version: what is attached must never move")
    return value


Line = Annotated[str, AfterValidator(_one_line)]
RelativePath = Annotated[str, AfterValidator(_relative)]
EnvName = Annotated[str, _matching(r"[A-Za-z_][A-Za-z0-9_]*", "an environment variable's name")]
FlagName = Annotated[str, _matching(r"[A-Za-z][A-Za-z0-9-]*", "a flag's name without dashes, like device")]
Alias = Annotated[str, _matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", "a dataset's alias")]
CATALOGUE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
DEBIAN_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]+")
Platform = Literal["linux/amd64", "linux/arm64"]
PLATFORMS = get_args(Platform)
DebianPackage = Annotated[str, _matching(DEBIAN_NAME.pattern, "a Debian package's name")]


def _kebab(name: str) -> str:
    return name.replace("_", "-")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=_kebab, populate_by_name=True)


class ImageSpec(_Table):
    """`[image]`: what is built."""

    name: Annotated[str, AfterValidator(parse_repository)]
    version: Annotated[str, AfterValidator(_version)] = "0.1.0"
    python: Annotated[str, _matching(r"3\.\d{1,2}", "a Python version like 3.11")] = "3.11"
    platform: Platform = "linux/amd64"
    base: Annotated[str, AfterValidator(_base)] = "auto"
    torch: Literal["cpu", "cuda", "auto"] = "auto"
    requirements: RelativePath | None = None
    system_packages: tuple[DebianPackage, ...] = ()
    bytecode: bool = True
    exclude: tuple[Line, ...] = ()

    @model_validator(mode="after")
    def _packages_have_a_base(self) -> ImageSpec:
        if self.system_packages and own_base(self.base):
            raise ValueError(
                "system-packages are part of the base that trainpack builds, and base names one of your own: "
                f"`trainpack base build --package {self.system_packages[0]}` makes one that has them"
            )
        return self


class RunSpec(_Table):
    """`[run]`: how the script is started."""

    script: RelativePath | None = None
    module: Annotated[str, _matching(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", "a module's dotted name")] | None = (
        None
    )
    launcher: tuple[Line, ...] = ()
    args: tuple[Line, ...] = ()
    arguments: Literal["argv", "overrides", "env", "file"] = "argv"
    allow_flags: tuple[FlagName, ...] = ()
    flags: tuple[str, ...] = ()
    env: dict[EnvName, Line] = Field(default_factory=dict)
    pass_token: bool = True

    @field_validator("flags")
    @classmethod
    def _canonical(cls, flags: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        allowed = (info.context or {}).get("allow", ())
        return normalise_flags(flags, (*info.data.get("allow_flags", ()), *allowed))

    @model_validator(mode="after")
    def _one_of(self) -> RunSpec:
        if (self.script is None) == (self.module is None):
            raise ValueError("expected either script or module, not both and not none")
        return self


class OutputsSpec(_Table):
    """`[outputs]`: what is not collected."""

    exclude: tuple[Line, ...] = ()


class ModelSpec(_Table):
    """`[model]`: the ModelVersion that the image belongs to."""

    version: Annotated[Line, _matching(r"\S.*/[^/]*\S", "MODEL/VERSION")] | None = None
    framework: Framework = "NOT_CONFIGURED"
    type: InferenceType = "NOT_CONFIGURED"
    description: Line | None = None
    notebook_link: Line | None = None


class ParameterSpec(_Table):
    """One entry of `[parameters]`, in its long form."""

    default: Any = None
    type: str = ""
    required: bool = False
    optional: bool = False
    choices: tuple[Any, ...] | None = None
    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None
    argument: Line | None = None
    argument_false: Line | None = None
    help: Line | None = None

    @model_validator(mode="before")
    @classmethod
    def _long_form(cls, data: Any) -> Any:
        return data if isinstance(data, dict) and data.keys() & _PARAMETER_KEYS else {"default": data}

    @model_validator(mode="after")
    def _consistent(self) -> ParameterSpec:
        if self.type and self.type not in TYPES:
            raise ValueError(
                f"{self.type!r} is not a type{close_match(self.type, TYPES)}: {', '.join(TYPES)}"
            )
        if self.required and self.default is not None:
            raise ValueError("a required parameter has no default: drop one of the two")
        self.parameter("it")
        return self

    def parameter(self, name: str) -> Parameter:
        """The parameter as image and entrypoint know it, its default coerced and checked.

        Raises:
            ValueError: The default is not a legal value.
        """
        values = self.model_dump()
        values["type"] = self.type or type_of(self.default)
        values["optional"] = self.optional or (self.default is None and not self.required)
        parameter = Parameter(name=name, **values)
        if self.required:
            return parameter
        return Parameter(name=name, **values | {"default": parameter.coerce(self.default)})


_PARAMETER_KEYS = {_kebab(name) for name in ParameterSpec.model_fields}


def _parameter_names(parameters: dict[str, ParameterSpec]) -> dict[str, ParameterSpec]:
    for name in parameters:
        if not NAME.fullmatch(name):
            raise ValueError(f"{name!r} is not a parameter's name: letters, digits, _ . - only")
    return parameters


def _apart(data: dict[str, str]) -> dict[str, str]:
    for alias, path in data.items():
        for other, outer in data.items():
            if alias != other and PurePosixPath(path).is_relative_to(outer):
                raise ValueError(f"{alias} = {path!r} lies in {other} = {outer!r}: datasets must lie apart")
    return data


class TrainingSpec(_Table):
    """The whole of `trainpack.toml`."""

    image: ImageSpec
    run: RunSpec
    data: Annotated[dict[Alias, RelativePath], AfterValidator(_apart)] = Field(default_factory=dict)
    outputs: OutputsSpec = OutputsSpec()
    model: ModelSpec = ModelSpec()
    parameters: Annotated[dict[str, ParameterSpec], AfterValidator(_parameter_names)] = Field(
        default_factory=dict
    )
    labelmap: Annotated[dict[str, Any], AfterValidator(parse_labelmap)] | None = None


def load_spec(folder: Path, allow: Sequence[str] = ()) -> TrainingSpec:
    """Read and check `trainpack.toml` in a folder, and that the script it names is there.

    Args:
        allow: Names of flags to let through, on top of `[run] allow-flags`.

    Raises:
        SpecError: The file is missing, is not TOML, or says something that cannot be.
    """
    path = folder / FILE
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpecError(
            f"there is no {FILE} in {folder.resolve()}",
            remedy="`trainpack wrap SCRIPT` writes one for a script, `trainpack init` starts a new repo",
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot be read: {error}", place=FILE) from None
    spec = parse_spec(text, allow)
    _check_files(spec, folder)
    return spec


def check_platforms(platforms: Iterable[str]) -> tuple[str, ...]:
    """The platforms of an option, each once, when images are built for all of them.

    Raises:
        UsageError: They are not.
    """
    wanted = tuple(dict.fromkeys(platforms))
    for platform in wanted:
        if platform not in PLATFORMS:
            raise UsageError(f"{platform!r}, expected {' or '.join(PLATFORMS)}", place="--platform")
    return wanted


def parse_spec(text: str, allow: Sequence[str] = ()) -> TrainingSpec:
    """Read the text of a `trainpack.toml`; touches no file.

    Args:
        allow: Names of flags to let through, on top of `[run] allow-flags`.

    Raises:
        SpecError: Syntax error (with line and column), unknown key (with a suggestion) or bad value; all
            problems of the file are told at once.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"not valid TOML: {error}", place=FILE) from None
    try:
        return TrainingSpec.model_validate(data, context={"allow": tuple(allow)})
    except ValidationError as error:
        problems = [_problem(text, dict(problem)) for problem in error.errors(include_url=False)]
    if len(problems) == 1:
        raise problems[0]
    raise SpecError(
        f"{len(problems)} problems", place=FILE, details=tuple(str(problem) for problem in problems)
    )


def _problem(text: str, problem: dict[str, Any]) -> SpecError:
    keys = [str(part) for part in problem["loc"] if part != "[key]"]
    line = _line_of(text, keys)
    place = f"{FILE}:{line}" if line else FILE
    where = ".".join(keys)
    if problem["type"] == "extra_forbidden":
        known = _known_keys(keys[:-1])
        hint = close_match(keys[-1], known)
        return SpecError(f"unknown key {where}{hint}", place=place, remedy=f"known here: {', '.join(known)}")
    if problem["type"] == "missing":
        return SpecError(f"{where} is missing", place=place)
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] != "value_error":
        message += f", got {problem['input']!r}"
    return SpecError(f"{where}: {message}", place=place)


_TABLES: dict[str, type[BaseModel]] = {
    "image": ImageSpec,
    "run": RunSpec,
    "outputs": OutputsSpec,
    "model": ModelSpec,
}


def _known_keys(table: list[str]) -> list[str]:
    model: type[BaseModel] = TrainingSpec
    if table[:1] == ["parameters"]:
        model = ParameterSpec
    elif table:
        model = _TABLES[table[0]]
    return sorted(_kebab(name) for name in model.model_fields)


def _line_of(text: str, keys: list[str]) -> int | None:
    """The line of a key, read from the top; None when it is not written."""
    table, found = "", None
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[([^\[\]]+)\]\s*(#.*)?$", line):
            table = header[1].replace(" ", "")
            if table == keys[0] or table == ".".join(keys):
                found = number
        elif match := re.match(r"""\s*["']?([^"'=]+?)["']?\s*=""", line):
            path = f"{table}.{match[1]}" if table else match[1]
            if ".".join(keys).startswith(path) and (len(keys) > 1 or path == keys[0]):
                found = number
    return found


def _check_files(spec: TrainingSpec, folder: Path) -> None:
    script = spec.run.script or f"{str(spec.run.module).replace('.', '/')}.py"
    place = f"{FILE} [run]"
    if spec.run.script and not (folder / script).exists():
        raise SpecError(f"script {script!r} does not exist in {folder.resolve()}", place=place)
    if spec.run.script and not (folder / script).is_file():
        raise SpecError(f"script {script!r} is not a file", place=place)
    package = (folder / script).with_suffix("") / "__main__.py"
    if spec.run.module and not (folder / script).is_file() and not package.is_file():
        raise SpecError(
            f"module {spec.run.module!r} is neither {script} nor a package with __main__.py", place=place
        )
    requirements = spec.image.requirements
    if requirements and not (folder / requirements).is_file():
        raise SpecError(
            f"requirements {requirements!r} is not a file in {folder.resolve()}", place=f"{FILE} [image]"
        )
