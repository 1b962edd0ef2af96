"""Checks of the settings of ``stream`` against each other; a dry run makes them too."""

from mmtpp.config.job_checks import lies_within
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError

KAFKA = "kafka://"


def check_stream(config: RunConfig) -> None:
    """Check that the input can be read as a stream, and that the output lies elsewhere.

    Raises:
        ConfigError: The settings contradict each other.
    """
    source, settings = config.source, config.stream
    if not (source.kind == "xes" or (source.kind == "columns" and source.columns.sequence)):
        raise ConfigError(
            "a stream needs events that name their sequence",
            cause="without that, each file is whole sequences, and prepare itself reads the new "
            "files of a folder",
            setting=f"source.kind = {source.kind}, source.columns.sequence = "
            f"{source.columns.sequence!r}; set columns and the column of the sequence, or xes",
        )
    if settings.output.startswith(KAFKA):
        raise ConfigError(
            "events are landed in a folder, not in Kafka",
            setting=f"stream.output = {settings.output}",
        )
    if settings.service and not settings.service.startswith(("http://", "https://")):
        raise ConfigError(
            "the address of a service begins with http:// or https://",
            setting=f"stream.service = {settings.service}",
        )
    if settings.input.startswith(KAFKA):
        _check_kafka(config)
    elif lies_within(settings.output, settings.input):
        raise ConfigError(
            f"stream.output = {settings.output} is inside stream.input = {settings.input}, so the "
            "landed events would be read again; choose a folder outside of it"
        )
    if 0 < settings.stop_when_idle_seconds < settings.idle_release_seconds:
        raise ConfigError(
            "the job would end before it lands the last events",
            cause="held events are landed after idle_release_seconds without new events",
            setting=f"stream.stop_when_idle_seconds = {settings.stop_when_idle_seconds:g}, "
            f"stream.idle_release_seconds = {settings.idle_release_seconds:g}",
        )


def _check_kafka(config: RunConfig) -> None:
    uri = config.stream.input
    hosts, _, topic = uri.removeprefix(KAFKA).partition("/")
    if not hosts or not topic or "/" in topic:
        raise ConfigError(
            "the address of a topic is kafka://HOST:PORT/TOPIC", setting=f"stream.input = {uri}"
        )
    if config.source.kind != "columns":
        raise ConfigError(
            "the messages of Kafka are read as JSON objects with the fields of source.columns",
            where=uri,
            setting=f"source.kind = {config.source.kind}; set columns",
        )
