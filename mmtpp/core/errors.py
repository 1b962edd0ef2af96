"""Errors a user can act on. Each says what happened, where, the likely cause and the setting."""

import json
import re

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


def without_addresses(text: str) -> str:
    """Shorten ``<Connection object at 0x7f00>``, as libraries print it, to ``<Connection object>``.

    An address says nothing to a user, and differs between runs.
    """
    return _ADDRESS.sub("", text)


def first_line(error: Exception) -> str:
    """The first line of an error's message, shortened; its type if the message is empty."""
    return without_addresses((str(error).splitlines() or [type(error).__name__])[0])[:300]


class MmtppError(Exception):
    """Root of the project's errors. Its message has no addresses of objects, see
    ``without_addresses``.

    Args:
        problem: What went wrong, in one sentence.
        where: Place of the problem: a path and row, a rank and step, a URI.
        cause: Likely reason, and what to do about it.
        setting: Setting to change, with its present value.
    """

    def __init__(
        self, problem: str, *, where: str = "", cause: str = "", setting: str = ""
    ) -> None:
        problem, where, cause, setting = map(without_addresses, (problem, where, cause, setting))
        self.problem, self.where, self.cause, self.setting = problem, where, cause, setting
        lines = [problem]
        lines += [f"  where: {where}"] if where else []
        lines += [f"  likely cause: {cause}"] if cause else []
        lines += [f"  setting: {setting}"] if setting else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        # Ray pickles errors to send them between processes; keyword arguments need this.
        return (_rebuild, (type(self), self.problem, self.where, self.cause, self.setting))


def _rebuild(
    error_class: type[MmtppError], problem: str, where: str, cause: str, setting: str
) -> MmtppError:
    return error_class(problem, where=where, cause=cause, setting=setting)


def error_to_json(error: MmtppError) -> str:
    """An error as JSON text, which fits a row of a Ray data set."""
    parts = [type(error).__name__, error.problem, error.where, error.cause, error.setting]
    return json.dumps(parts)


def error_from_json(text: str) -> MmtppError:
    """The error that ``error_to_json`` wrote."""
    name, *parts = json.loads(text)
    classes = {cls.__name__: cls for cls in (MmtppError, *_subclasses(MmtppError))}
    return _rebuild(classes[name], *parts)


def _subclasses(error_class: type[MmtppError]) -> list[type[MmtppError]]:
    return [
        subclass
        for child in error_class.__subclasses__()
        for subclass in (child, *_subclasses(child))
    ]


class ConfigError(MmtppError):
    """The configuration is wrong; the message lists every fault."""


class DataError(MmtppError):
    """An input file, an event or an event store cannot be used."""


class StorageError(MmtppError):
    """A path or bucket cannot be reached, read or written."""


class MissingFileError(StorageError):
    """A file does not exist, although its storage can be reached."""


class FileTooLargeError(DataError):
    """A file is larger than the limit that keeps memory bounded."""


class ModelError(MmtppError):
    """A model folder, an adapter or a vocabulary does not fit."""


class NonFiniteLossError(MmtppError):
    """The loss or the gradient norm is not finite; raised before the weights change."""


class StoppedError(MmtppError):
    """The job was asked to stop and stopped early; nothing is lost."""


class ClusterError(MmtppError):
    """A local service did not start, or the cluster cannot hold the job."""
