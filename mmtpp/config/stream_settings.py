"""Settings of ``stream``: events that arrive over time, from a folder or from Kafka."""

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from mmtpp.config.affects import Affects
from mmtpp.config.section import Section, Uri


class StreamSection(Section):
    """Events that arrive over time, and the folder that they are landed in."""

    input: Annotated[Uri, Affects.NOTHING] = ""
    """Folder whose files appear over time, a local path, s3://, gs:// or az://; or
    kafka://HOST:PORT,HOST:PORT/TOPIC with JSON values. ``source.*`` describes the events, and
    ``source.uri`` is not read."""
    output: Annotated[Uri, Affects.NOTHING] = ""
    """Folder of the landed events and of the commits; a local path, s3://, gs:// or az://. One job
    at a time writes to it."""
    allowed_lateness_seconds: Annotated[NonNegativeFloat, Affects.NOTHING] = 0.0
    """Time by which an event may arrive after events with later times, in seconds of the events'
    own times, at least 0. Events are held for this long and landed in order."""
    idle_release_seconds: Annotated[PositiveFloat, Affects.NOTHING] = 60.0
    """Time without new events after which all held events are landed, in seconds, above 0. Without
    it, the last events would wait for a later event for ever."""
    commit_seconds: Annotated[PositiveFloat, Affects.NOTHING] = 10.0
    """Minimum time between two commits, in seconds, above 0. A commit writes one file of landed
    events."""
    poll_seconds: Annotated[PositiveFloat, Affects.NOTHING] = 1.0
    """Time between two polls of an input without new events, in seconds, above 0."""
    max_held_events: Annotated[int, Field(ge=2), Affects.NOTHING] = 100_000
    """Maximum number of events that are held, or landed and not yet delivered to ``service``, at
    least 2. At this number, reading pauses. One file is read as a whole and may exceed it."""
    stop_when_idle_seconds: Annotated[NonNegativeFloat, Affects.NOTHING] = 0.0
    """Time without new events after which the job ends, in seconds, at least 0. 0: the job runs
    until it is stopped."""
    on_lost: Annotated[Literal["fail", "skip"], Affects.NOTHING] = "fail"
    """Treatment of messages that Kafka deleted before they were read: ``fail`` stops the job,
    ``skip`` counts them and continues with the oldest message."""
    kafka_config: Annotated[str, Affects.NOTHING] = ""
    """Local file with settings of the Kafka client, NAME=VALUE in each line, such as
    ``security.protocol=SSL``. Passwords belong there. Empty: no further settings."""
    service: Annotated[Uri, Affects.NOTHING] = ""
    """Address of a service of live forecasts, such as http://127.0.0.1:8000, that gets the landed
    events. Empty: no service."""
    service_token_file: Annotated[str, Affects.NOTHING] = ""
    """Local file with the token of the service. Empty: no token."""
