"""Errors a user can act on. Each says what happened, where, the likely cause and the setting."""

import json


class MmtppError(Exception):
    """Root of the project's errors.

    Args:
        what: one sentence, what went wrong.
        where: the place: a path and row, a rank and step, a URI.
        cause: the likely reason and what to do about it.
        setting: the configuration key to change, with its present value.
    """

    def __init__(self, what: str, *, where: str = "", cause: str = "", setting: str = "") -> None:
        self.what, self.where, self.cause, self.setting = what, where, cause, setting
        lines = [what]
        lines += [f"  where: {where}"] if where else []
        lines += [f"  likely cause: {cause}"] if cause else []
        lines += [f"  setting: {setting}"] if setting else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        # Ray carries errors between processes by pickling; keyword arguments need this.
        return (_rebuild, (type(self), self.what, self.where, self.cause, self.setting))


def _rebuild(leaf: type[MmtppError], what: str, where: str, cause: str, setting: str) -> MmtppError:
    return leaf(what, where=where, cause=cause, setting=setting)


def as_record(error: MmtppError) -> str:
    """An error as text, to be carried in a row of a data set."""
    parts = [type(error).__name__, error.what, error.where, error.cause, error.setting]
    return json.dumps(parts)


def from_record(record: str) -> MmtppError:
    """The error that ``as_record`` described."""
    name, *parts = json.loads(record)
    kinds = {kind.__name__: kind for kind in (MmtppError, *_below(MmtppError))}
    return _rebuild(kinds[name], *parts)


def _below(kind: type[MmtppError]) -> list[type[MmtppError]]:
    return [each for child in kind.__subclasses__() for each in (child, *_below(child))]


class ConfigError(MmtppError):
    """The configuration is wrong; the message lists every fault found."""


class DataError(MmtppError):
    """An input file, an event or an event store cannot be used."""


class StorageError(MmtppError):
    """A path or bucket cannot be reached, read or written."""


class MissingFileError(StorageError):
    """A file is not there, while the place itself can be reached."""


class FileTooLargeError(DataError):
    """A file is over a limit that keeps memory bounded."""


class ModelError(MmtppError):
    """A model folder, adapter or vocabulary does not fit."""


class NonFiniteLossError(MmtppError):
    """The loss or the gradient norm stopped being finite; raised before the weights change."""


class StoppedError(MmtppError):
    """The job ended before its end because it was asked to; nothing is lost."""


class ClusterError(MmtppError):
    """A local service did not start, or the cluster cannot hold the job."""
