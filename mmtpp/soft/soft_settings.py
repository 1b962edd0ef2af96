"""Settings of a soft model, and the file that keeps them."""

import json
from dataclasses import dataclass, replace

from mmtpp.core.errors import ModelError
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.expert.network import NetworkSize
from mmtpp.model.folders.folder import read_model_file

SETTINGS_FILE = "soft.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftSettings:
    """Everything about a soft model but its backbone and its weights.

    Attributes:
        memory: Settings of the memory.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        type_codes: (K,) codes of the types that the model forecasts, in order.
        width: Width of the expert's network, W.
        num_components: Number of log-normal components of the interval's distribution.
        dropout: Probability of dropout of the network's widest layer while training.
    """

    memory: MemorySettings
    tick: float
    type_codes: tuple[int, ...]
    width: int
    num_components: int
    dropout: float

    def network_size(self, context_width: int) -> NetworkSize:
        """Size of the expert's network on a language model.

        Args:
            context_width: Width of the language model.
        """
        return NetworkSize(
            width=self.width,
            num_components=self.num_components,
            num_types=len(self.type_codes),
            num_columns=len(self.memory.column_names),
            context_width=context_width,
        )


def with_memory(sample_settings: SampleSettings, uri: str) -> SampleSettings:
    """Settings of samples whose soft tokens hold the memory of a model.

    Args:
        sample_settings: Settings of the samples.
        uri: Folder of the adapter, or of the whole model.

    Raises:
        ModelError: The folder holds no soft model.
    """
    settings = load_soft_settings(uri)
    if settings is None:
        raise ModelError(
            f"the model has no soft tokens: the folder has no {SETTINGS_FILE}",
            where=uri,
            cause="only a training with template.style = soft writes it",
        )
    return replace(sample_settings, memory=settings.memory)


def load_soft_settings(uri: str) -> SoftSettings | None:
    """Settings of the soft model of a folder, local or remote; None if the folder has none.

    Raises:
        ModelError: The file is damaged.
        StorageError: The folder cannot be read.
    """
    content = read_model_file(uri, SETTINGS_FILE) if uri else None
    if content is None:
        return None
    try:
        tree = json.loads(content)
        memory = tree["memory"]
        names = ("counted_types", "calendar_periods")
        tree["memory"] = MemorySettings(**memory | {name: tuple(memory[name]) for name in names})
        tree["type_codes"] = tuple(tree["type_codes"])
        return SoftSettings(**tree)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{SETTINGS_FILE} is damaged: {error}", where=uri) from error
