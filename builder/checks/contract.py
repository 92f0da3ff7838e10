"""The contract's checks: each proves one promise and is able to fail."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from packaging.utils import canonicalize_name, canonicalize_version

from builder.checks import probe
from builder.checks.context import Context, Observation
from builder.checks.layers import Layer
from builder.checks.leftovers import (
    CACHES,
    LOOSE,
    SECRETS,
    TOOLS,
    VERSION_CONTROL,
    is_secret_setting,
    secret_settings,
)
from builder.checks.report import CheckResult
from builder.checks.values import MARK, missing_values, other_value
from builder.errors import ContractError
from builder.plan import CONTRACT, ENTRYPOINT, LABEL

ANY_USER = "42420:42420"
REBUILD = "build the image with `trainpack build` and do not change it afterwards"
SHOWN = 5


class NotShownError(ContractError):
    """The image leaves no way to see whether the promise is kept."""


class Check(ABC):
    """One promise of docs/contract.md.

    Attributes:
        name: `non-root`, `read-only-root`, …
        proves: The promise, as one sentence.
        remedy: What to do when it is not kept.
    """

    name: ClassVar[str]
    proves: ClassVar[str]
    remedy: ClassVar[str]

    def run(self, context: Context) -> CheckResult:
        """Look whether the promise is kept.

        Raises:
            EngineError: The engine failed; a failing image is a result.
        """
        start = time.monotonic()
        status: Literal["passed", "failed", "skipped"] = "passed"
        try:
            detail = self._look(context)
        except NotShownError as error:
            status, detail = "skipped", error.message
        except ContractError as error:
            status, detail = "failed", error.message
        return CheckResult(
            name=self.name,
            status=status,
            proves=self.proves,
            detail=detail,
            remedy=self.remedy if status == "failed" else "",
            seconds=round(time.monotonic() - start, 2),
        )

    @abstractmethod
    def _look(self, context: Context) -> str:
        """What was seen; raises ContractError with the value met and what was expected."""


def expect(kept: bool, otherwise: str) -> None:
    """Raise unless the promise is kept."""
    if not kept:
        raise ContractError(otherwise)


def ended(seen: Observation, code: int = 0) -> Observation:
    """The observation, once the container ended with this code."""
    expect(seen.exit_code == code, f"{seen.ending}; expected {code}")
    return seen


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    listed = sorted(names)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more


class Entrypoint(Check):
    """The image starts with the entrypoint, and that runs the declared script."""

    name = "entrypoint"
    proves = "the image starts with trainpack's entrypoint, which runs the declared script"
    remedy = f"remove ENTRYPOINT and CMD from what was added to the image, or {REBUILD}"

    def _look(self, context: Context) -> str:
        entrypoint = tuple(context.config.get("Entrypoint") or ())
        expect(entrypoint == ENTRYPOINT, f"the entrypoint is {list(entrypoint)}, expected {list(ENTRYPOINT)}")
        command = context.config.get("Cmd")
        expect(not command, f"CMD {command} would be given to the script, expected none")
        seen = ended(context.plain)
        place = seen.seen["cwd"]
        expect(place == "/workspace/code", f"the script runs in {place}, expected /workspace/code")
        return f"runs {context.script} in {place}"


class Labels(Check):
    """The labels are there and say what the manifest says."""

    name = "labels"
    proves = "labels are complete and say the same as the baked manifest: lock, revision, versions"
    remedy = REBUILD

    def _look(self, context: Context) -> str:
        labels: dict[str, str] = context.config.get("Labels") or {}
        expected = self._expected(context)
        wrong = [
            f"{name} is {json.dumps(labels.get(name))}, expected {json.dumps(value)}"
            for name, value in expected.items()
            if labels.get(name) != value
        ]
        missing = [name for name in self._required if not labels.get(name)]
        expect(not missing, f"missing: {', '.join(missing)}")
        expect(not wrong, "; ".join(wrong))
        return f"lock {labels[f'{LABEL}.lock'][:12]}, revision {context.manifest.revision or 'none'}"

    _required = (
        "org.opencontainers.image.title",
        "org.opencontainers.image.base.name",
        f"{LABEL}.base",
        f"{LABEL}.plan",
    )

    def _expected(self, context: Context) -> dict[str, str | None]:
        manifest = context.manifest
        return {
            "org.opencontainers.image.version": manifest.version,
            "org.opencontainers.image.revision": manifest.revision,
            f"{LABEL}.contract": CONTRACT,
            f"{LABEL}.version": manifest.trainpack,
            f"{LABEL}.lock": manifest.lock,
            f"{LABEL}.cuda": manifest.gpu.cuda if manifest.gpu else None,
            f"{LABEL}.driver": manifest.gpu.driver if manifest.gpu else None,
        }


class NonRoot(Check):
    """The default user is not root."""

    name = "non-root"
    proves = "the image's default user is not root"
    remedy = "end what was added to the image with `USER 1000:1000`"

    def _look(self, context: Context) -> str:
        user = context.config.get("User") or ""
        expect(user.partition(":")[0] not in ("", "0", "root"), f"the default user is {user or 'root'!r}")
        uid = ended(context.plain).seen["uid"]
        expect(uid != 0, f"the script runs with uid {uid}")
        return f"uid {uid}"


class AnyUser(Check):
    """A uid that the image has never heard of can train."""

    name = "any-user"
    proves = "it runs under a uid without a name, which then has a writable HOME"
    remedy = "make what was added readable by all (`chmod -R a+rX`), and /workspace mode 1777"

    def _look(self, context: Context) -> str:
        seen = ended(context.run_probe(user=ANY_USER)).seen
        uid, expected = seen["uid"], int(ANY_USER.partition(":")[0])
        expect(uid == expected, f"the script runs with uid {uid}, expected {expected}")
        expect(seen["home_is_writable"], "HOME is not writable")
        return f"uid {uid}"


class _Confined(Check):
    """A run under a confinement ends as it does without."""

    options: ClassVar[dict[str, Any]]

    def _look(self, context: Context) -> str:
        uid = ended(context.run_probe(**self.options)).seen["uid"]
        settings = ", ".join(f"{name}={value}" for name, value in self.options.items())
        return f"{settings}, uid {uid}"


class ReadOnlyRoot(_Confined):
    """Nothing outside /workspace is written."""

    name = "read-only-root"
    proves = "it runs with a read-only root, /workspace being the only writable place"
    remedy = "write below /workspace (HOME and TMPDIR are there) and nowhere else"
    options: ClassVar[dict[str, Any]] = {"read_only": True}


class NoNetwork(_Confined):
    """The entrypoint needs no network unless a platform is configured."""

    name = "no-network"
    proves = "it runs without a network when no platform is configured"
    remedy = REBUILD
    options: ClassVar[dict[str, Any]] = {"network_mode": "none"}


class SmallShm(_Confined):
    """The entrypoint needs no shared memory."""

    name = "small-shm"
    proves = "it runs with 1 MiB of shared memory"
    remedy = REBUILD
    options: ClassVar[dict[str, Any]] = {"shm_size": "1m"}


class NoCapabilities(_Confined):
    """No capability is needed or gained."""

    name = "no-capabilities"
    proves = "it runs without any capability and without gaining privileges"
    remedy = "do not start anything that changes users or owners at run time"
    options: ClassVar[dict[str, Any]] = {"cap_drop": ["ALL"], "security_opt": ["no-new-privileges"]}


class Confined(_Confined):
    """All of these at once, as a strict cluster runs it."""

    name = "confined"
    proves = (
        "it runs under any uid with a read-only root, no network, no capability and 1 MiB of shared memory"
    )
    remedy = "run the image with all of these together; each on its own is a check above"
    options: ClassVar[dict[str, Any]] = {
        "user": ANY_USER,
        **ReadOnlyRoot.options,
        **NoNetwork.options,
        **SmallShm.options,
        **NoCapabilities.options,
    }

    def _look(self, context: Context) -> str:
        super()._look(context)
        return "all of these together"


class Parameters(Check):
    """Every declared parameter reaches the script."""

    name = "parameters"
    proves = "every declared parameter reaches the script with another value than its default"
    remedy = REBUILD

    def _look(self, context: Context) -> str:
        manifest = context.manifest
        parameters = manifest.parameters
        values = {name: other_value(parameter) for name, parameter in parameters.items()}
        given = {name: value for name, value in values.items() if value is not None}
        # Every second one on each of the two ways, as a file and as a variable.
        settings = dict(list(given.items())[::2])
        variables = {f"TRAINPACK_SET_{name}": self._text(value) for name, value in settings.items()}
        task = {"variables": [each.argument or each.name for each in parameters.values()]}
        mounted = {name: value for name, value in given.items() if name not in settings}
        seen = ended(context.run_probe(task, parameters=mounted, environment=variables)).seen
        missing = missing_values(parameters, given, seen, manifest.run.arguments)
        met = seen["argv"] if manifest.run.arguments in ("argv", "overrides") else seen["parameters"]
        expect(not missing, f"{'; '.join(missing)}; the script got {json.dumps(met)}")
        same = len(parameters) - len(given)
        return f"{len(given)} set" + (f", {same} with no other legal value" if same else "")

    def _text(self, value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)


class Labelmap(Check):
    """The labelmap reaches the script."""

    name = "labelmap"
    proves = "a labelmap other than the baked one reaches the script"
    remedy = REBUILD

    def _look(self, context: Context) -> str:
        given = {"0": f"{MARK}-a", "1": f"{MARK}-b"}
        met = ended(context.run_probe(labelmap=given)).seen["labelmap"]
        expect(met == given, f"the script got {json.dumps(met)}, expected {json.dumps(given)}")
        return f"{len(given)} labels"


class BadParameter(Check):
    """A parameter that nobody declared stops the run before the script."""

    name = "bad-parameter"
    proves = "an unknown parameter is refused with 78 before the script starts"
    remedy = REBUILD

    def _look(self, context: Context) -> str:
        seen = ended(context.run_probe(environment={"TRAINPACK_SET_trainpack_probe": "1"}), 78)
        expect(seen.report is None, "the script was started all the same")
        problems = seen.failure.get("problems") or ["exit code 78"]
        return str(problems[0])


class ExitCode(Check):
    """The script's exit code is the container's."""

    name = "exit-code"
    proves = "the script's exit code is the container's"
    remedy = REBUILD
    code = 37

    def _look(self, context: Context) -> str:
        seen = ended(context.run_probe({"exit": self.code}), self.code)
        script = seen.result.get("script_exit_code")
        expect(script == self.code, f"result.json says {script}, expected {self.code}")
        return f"{self.code} kept"


class Signal(Check):
    """SIGTERM reaches the script in time to save."""

    name = "signal"
    proves = "SIGTERM reaches the script, what it then saves is kept, and the container ends with 143"
    remedy = f"start nothing between the entrypoint and the script that swallows signals; {REBUILD}"

    def _look(self, context: Context) -> str:
        seen = context.run_probe({"wait": True}, stop_when_ready=True)
        expect(probe.SIGNAL in seen.outputs, f"SIGTERM never reached the script; {seen.ending}")
        ended(seen, 143)
        return "saved on SIGTERM, ended with 143"


class Outputs(Check):
    """What the script writes is collected."""

    name = "outputs"
    proves = "files in the outputs folder and files written beside the script are both collected"
    remedy = "look at [outputs] exclude; outputs are what the script writes below its working directory"

    def _look(self, context: Context) -> str:
        seen = ended(context.plain)
        wanted = {probe.REPORT, probe.RELATIVE}
        expect(wanted <= seen.outputs, f"missing in outputs: {some(wanted - seen.outputs)}")
        listed = {entry.get("path") for entry in seen.result.get("outputs", ())}
        expect(wanted <= listed, f"missing in result.json: {some(wanted - listed)}")
        return f"{len(listed)} files"


class Writable(Check):
    """The default user can change nothing of the image."""

    name = "writable"
    proves = "the default user can write to /workspace and nowhere else"
    remedy = "`chmod -R go-w` what was added, and let root own it"

    def _look(self, context: Context) -> str:
        paths = ended(context.plain).seen["writable"]
        expect(not paths, f"writable: {some(paths)}")
        return "nothing but /workspace"


class _InNoLayer(Check):
    """No layer holds what is of certain kinds, not even where a later layer removes it."""

    kinds: ClassVar[tuple[str, ...]]

    def _look(self, context: Context) -> str:
        layers = context.saved.layers
        met = [f"{kind}: {some(paths)}" for kind in self.kinds if (paths := list(places(layers, kind)))]
        expect(not met, "; ".join(met))
        return f"{sum(layer.files for layer in layers)} files and folders in {len(layers)} layers"


def places(layers: Sequence[Layer], kind: str) -> Iterator[str]:
    """Where the layers hold something of a kind: `/opt/app/.env in layer 9, removed later`."""
    for number, layer in enumerate(layers, 1):
        for each in layer.found:
            if each.kind == kind:
                gone = any(later.hides(each.path) for later in layers[number:])
                yield f"{each.path} in layer {number}{', removed later' if gone else ''}"


class Contents(_InNoLayer):
    """No secrets, caches or build tools are left in the image."""

    name = "contents"
    proves = "no secrets, .env, .git, caches or compilers are in any layer"
    remedy = "add it to .dockerignore or [image] exclude and build again: a later layer only hides it"
    kinds = (SECRETS, VERSION_CONTROL, CACHES, TOOLS)


class Permissions(_InNoLayer):
    """Nobody gains rights or changes files, whoever the container runs as."""

    name = "permissions"
    proves = "no file of any layer is setuid, setgid or writable by all"
    remedy = "`chmod ug-s,o-w` it in the step that adds it: a later layer only hides it"
    kinds = tuple(LOOSE.values())


class Settings(Check):
    """The configuration, which everybody who pulls the image can read, holds no secret."""

    name = "settings"
    proves = "no secret is in the image's variables, labels, parameters or build history"
    remedy = (
        "revoke it; then give it to build steps as `RUN --mount=type=secret`, to runs as `--env NAME`, and "
        "build again"
    )

    def _look(self, context: Context) -> str:
        config = context.saved.config
        met = list(secret_settings(config))
        met += [
            f"the default of parameter {parameter.name}"
            for parameter in context.manifest.parameters.values()
            if isinstance(parameter.default, str) and is_secret_setting(parameter.name, parameter.default)
        ]
        expect(not met, some(met))
        return f"{len(config.get('history') or ())} steps of the history looked at"


class Packages(Check):
    """What is installed is what was locked."""

    name = "packages"
    proves = "exactly the locked packages are installed, in the locked versions"
    remedy = f"put what is missing into the requirements; {REBUILD}"

    def _look(self, context: Context) -> str:
        locked = context.manifest_document.get("packages")
        if locked is None:
            raise NotShownError("image.json names no packages: an older trainpack built it")
        installed = ended(context.plain).seen["packages"]
        wrong = package_differences(locked, installed)
        expect(not wrong, "; ".join(wrong))
        return f"{len(installed)} packages"


def package_differences(locked: Mapping[str, str], installed: Mapping[str, str]) -> list[str]:
    """The packages that are not installed as they are locked."""
    wanted = {canonicalize_name(name): version for name, version in locked.items()}
    met = {canonicalize_name(name): version for name, version in installed.items()}
    missing, extra = wanted.keys() - met.keys(), met.keys() - wanted.keys()
    others = [
        f"{name} {met[name]} instead of {wanted[name]}"
        for name in wanted.keys() & met.keys()
        if canonicalize_version(met[name]) != canonicalize_version(wanted[name])
    ]
    kinds = {"missing": missing, "not locked": extra, "other versions": others}
    return [f"{kind}: {some(names)}" for kind, names in kinds.items() if names]


CHECKS: tuple[Check, ...] = (
    Entrypoint(),
    Labels(),
    Packages(),
    NonRoot(),
    AnyUser(),
    ReadOnlyRoot(),
    NoNetwork(),
    SmallShm(),
    NoCapabilities(),
    Confined(),
    Parameters(),
    Labelmap(),
    BadParameter(),
    ExitCode(),
    Signal(),
    Outputs(),
    Writable(),
    Contents(),
    Permissions(),
    Settings(),
)
