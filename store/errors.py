"""Every error that QK Atlas raises on purpose. One root, so that a caller can catch them all.

Each class also inherits the builtin that a reader would expect, and says whose mistake it is:
`exit_code` 2 for the user's input, 1 for trouble in the data, the machine or our own code.
"""


class AtlasError(Exception):
    """Root of all errors of QK Atlas; never raised itself."""

    exit_code = 1


class ConfigError(AtlasError, ValueError):
    """A configuration or a command's argument is wrong."""

    exit_code = 2


class SourceNotFoundError(AtlasError, FileNotFoundError):
    """A corpus file, folder or glob matches nothing."""

    exit_code = 2


class CorpusFormatError(AtlasError, ValueError):
    """A whole corpus file cannot be read as what it claims to be."""

    exit_code = 2


class SourceChangedError(AtlasError, RuntimeError):
    """A file that was captured before has other content now."""

    exit_code = 2


class RejectedRowError(AtlasError, ValueError):
    """A row cannot be read and the run is strict."""

    exit_code = 2


class ModelLoadError(AtlasError, ValueError):
    """A model, tokenizer or image processor does not exist or does not load."""

    exit_code = 2


class UnsupportedModelError(AtlasError, NotImplementedError):
    """A model computes attention in a way that its stored vectors could not reproduce."""

    exit_code = 2


class CaptureMismatchError(AtlasError, ArithmeticError):
    """Attention recomputed from captured vectors differs from the model's own."""


class CaptureConflictError(AtlasError, ValueError):
    """The atlas already holds other weights or other capture settings under this model key."""

    exit_code = 2


class BudgetError(AtlasError, ValueError):
    """A run would write more bytes than `budget_bytes` allows."""

    exit_code = 2


class AtlasNotFoundError(AtlasError, FileNotFoundError):
    """There is no atlas at a URI."""

    exit_code = 2


class ObjectStoreError(AtlasError, ConnectionError):
    """An object store does not answer, whatever it was asked."""


class StoreAccessError(AtlasError, PermissionError):
    """An object store refuses: wrong or no credentials, another region, no such bucket."""

    exit_code = 2


class AccessDeniedError(StoreAccessError):
    """An object store knows who asks, or nobody, and does not let them."""


class UnsafeStoreError(StoreAccessError):
    """An object store overwrites what it was told to leave: two writers would undo each other."""


class AtlasFormatError(AtlasError, ValueError):
    """An atlas has a newer format, or a table is damaged or not ours."""


class OpenFilesError(AtlasError, RuntimeError):
    """This process has as many files open as it may; what could not be opened is not damaged."""


class CommitError(AtlasError, RuntimeError):
    """A commit to the lake did not go through after all attempts."""


class ShapeError(AtlasError, ValueError):
    """Arrays do not fit together."""


class NotInAtlasError(AtlasError, KeyError):
    """A model, head, sequence or map that was asked for is not in the atlas."""

    exit_code = 2

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class QueryError(AtlasError, ValueError):
    """A SQL statement is refused or fails."""

    exit_code = 2


class LimitError(AtlasError, ValueError):
    """A read would go over more than is allowed."""

    exit_code = 2


class StaleVersionError(AtlasError, LookupError):
    """A page's cursor names a version of the atlas that is no longer kept."""

    exit_code = 2


class SessionEndedError(AtlasError, LookupError):
    """A viewer's session has ended, or never was."""

    exit_code = 2


class ViewerMissingError(AtlasError, RuntimeError):
    """A viewer that is not part of this program is not installed."""

    exit_code = 2


class ViewerInstallError(AtlasError, RuntimeError):
    """A viewer cannot be fetched or unpacked."""


class BusyError(AtlasError, RuntimeError):
    """The service has no free worker and its queue is full."""

    def __init__(self, message: str, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class QueryKilledError(AtlasError, RuntimeError):
    """A SQL statement ran beyond its deadline or memory, or was cancelled."""


class NotOfferedError(AtlasError, NotImplementedError):
    """A protocol has something that the service does not offer."""

    exit_code = 2


class ServiceError(AtlasError, ConnectionError):
    """A service fails, breaks off, takes too long or does not answer as ours do."""


class StageError(AtlasError, RuntimeError):
    """A stage of a run ended with failed units of work."""
