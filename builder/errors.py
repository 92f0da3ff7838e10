"""The one exception tree: every failure a user can meet is a TrainpackError.

The command line prints `place: message` and the remedy and exits with `exit_code`; anything else that
escapes is a fault of trainpack itself.
"""


class TrainpackError(Exception):
    """A failure that is told to the user without a traceback.

    Args:
        message: What went wrong, with the value that was met and what was expected.
        place: Where: `trainpack.toml:12`, `[parameters.epochs]`, an image reference, a file.
        remedy: What to do about it, as one sentence or one command to run.
        details: Lines to show verbatim below the message (the end of a build step's output, say).
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        place: str | None = None,
        remedy: str | None = None,
        details: tuple[str, ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.place = place
        self.remedy = remedy
        self.details = details

    def __str__(self) -> str:
        return f"{self.place}: {self.message}" if self.place else self.message

    @property
    def explained(self) -> str:
        """All of it, as lines to show: place and message, details, remedy."""
        remedy = [f"  → {self.remedy}"] if self.remedy else []
        return "\n".join([str(self), *(f"  {line}" for line in self.details), *remedy])


class UsageError(TrainpackError):
    """The command line, or what the user declared, is wrong; nothing was done."""

    exit_code = 2


class SpecError(UsageError):
    """`trainpack.toml` or a file that it names is missing, malformed or inconsistent."""


class LockError(UsageError):
    """The requirements cannot be resolved or installed, or the lock does not belong to them."""


class EngineError(TrainpackError):
    """The container engine answered with an error."""


class EngineUnavailableError(EngineError):
    """No container engine answers, or none that can do what is needed."""


class BuildError(EngineError):
    """A step of an image build failed."""


class OnbuildError(BuildError):
    """The base has ONBUILD steps, which only an engine can run."""


class ImageFormatError(TrainpackError):
    """What should be an image, a manifest or a layer is malformed, incomplete or hostile."""


class LayerError(TrainpackError):
    """A file cannot go into a layer: its name, its kind or its mode, or it changed while it was read."""


class WheelError(TrainpackError):
    """A wheel is corrupt or hostile, is not the one that the lock names, or cannot be installed."""


class BlobError(TrainpackError):
    """A blob is not there any more, or its bytes are not those of its digest; making it again helps."""


class RegistryError(TrainpackError):
    """An image registry refused or failed a request."""


class RegistryDeniedError(RegistryError):
    """The registry wants other credentials, or these may not do this."""


class ImageNotFoundError(RegistryError):
    """The registry answers, and has no such image."""


class RegistryUnavailableError(RegistryError):
    """The registry does not answer, or answers that it is broken or busy."""


class StoreError(TrainpackError):
    """A model store (local or Picsellia) refused or failed a request.

    Attributes:
        written: Whether the write that failed took effect; None where that is not known.
    """

    written: bool | None = False


class NotFoundError(StoreError):
    """The named object does not exist in the store."""


class ReadBackError(StoreError):
    """What the store holds after a write is not what was written."""


class ContractError(TrainpackError):
    """An image does not keep the contract of docs/contract.md, or was not shown to keep it."""


class MirrorError(TrainpackError):
    """A mirror of Debian does not serve what it should, or what it serves cannot be trusted or used."""
