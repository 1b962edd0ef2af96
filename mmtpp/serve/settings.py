"""Arguments of the application, as ``serve run mmtpp.serve.app:build NAME=VALUE`` takes them."""

from pathlib import Path

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)

from mmtpp.serve.build_live_model import MAX_SEQUENCES, WATCHED_PER_S
from mmtpp.serve.event_log import IN_MEMORY
from mmtpp.serve.live_events import MAX_TEXT
from mmtpp.serve.live_language_model import MAX_CACHE_MIB

MAX_SHARDS = 256


class ServeSettings(BaseModel):
    """Arguments of the application. Names of arguments that do not exist are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    model_uri: str = Field(min_length=1)
    """Folder of the model or adapter: a local path, a remote URI or hf://. Or a model of MLflow's
    registry, ``models:/NAME@ALIAS``: when the alias moves to another version, that version replaces
    the model while requests are answered."""
    base_uri: str = ""
    """Folder of the model that the adapter adapts; empty for the one that it names."""
    expert_uri: str = ""
    """Folder that ``combine`` wrote, whose expert is mixed with the language model; empty for
    none."""
    tracking_uri: str = ""
    """Address of the MLflow server of ``models:/``; empty for MLFLOW_TRACKING_URI."""
    follow_s: PositiveFloat = 30.0
    """Time between two polls of the registry, in seconds."""
    state_folder: str = ""
    """Folder of the logs of events, on a disk that every machine reaches that may run a shard.
    Empty: events are kept in memory, and lost with the process."""
    num_shards: int = Field(default=1, ge=1, le=MAX_SHARDS)
    """Number of processes that hold the sequences, each its share by name. Fixed for a
    ``state_folder``. The only one also answers the requests."""
    gpus_per_shard: float = Field(default=0.0, ge=0.0)
    """Number of GPUs of each of them, for language models."""
    max_gateways: PositiveInt = 4
    """Largest number of processes that read requests for several shards; Serve starts more of them
    under load."""
    max_sequences: PositiveInt = MAX_SEQUENCES
    """Largest number of sequences whose state an expert keeps in memory, over all shards. The state
    of another one is computed from its events when it is needed."""
    max_cache_mib: NonNegativeInt = MAX_CACHE_MIB
    """Largest memory of the keys and values that language models keep of sequences, over all
    shards, in MiB, on the device of the model. A history whose keys and values are not kept passes
    the model again; 0 keeps none."""
    batch_wait_ms: NonNegativeFloat = 0.0
    """Longest time that a request waits for others that are carried out with it, in ms. Those that
    come while others are carried out mostly go together anyway."""
    watched_per_s: PositiveFloat = WATCHED_PER_S
    """For the figures of drift: how many new events per second an expert compares with their
    forecasts, over all shards."""
    max_body_kib: PositiveInt = 1024
    """Largest body of a request, in KiB."""
    max_events: PositiveInt = 1000
    """Largest number of events of a request."""
    max_text: NonNegativeInt = MAX_TEXT
    """Largest length of a text, in characters."""
    max_futures: NonNegativeInt = 200
    """Largest number of sampled futures of a forecast."""
    timeout_s: PositiveFloat = 30.0
    """Longest time that a request waits for its shard, in seconds."""
    token_file: str = ""
    """File with the token that requests must send as ``Authorization: Bearer TOKEN``. Empty: only
    requests from the machine itself are answered."""

    def log_path(self, shard: int) -> str:
        """The file of a shard's events."""
        if not self.state_folder:
            return IN_MEMORY
        return str(Path(self.state_folder) / f"events-{shard}-of-{self.num_shards}.sqlite")
