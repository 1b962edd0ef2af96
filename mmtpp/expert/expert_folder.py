"""The folder of a trained expert: weights in safetensors, and everything else in JSON.

The folder also has the tokenizer that counts the tokens of texts, and the record of the tasks that
folders of all models have (``mmtpp.model.folders.record``).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file

from mmtpp.core.errors import ModelError
from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.past.event_words import TextSettings
from mmtpp.expert.interval_density import IntervalScale
from mmtpp.expert.network import ExpertNetwork, NetworkSize
from mmtpp.model.folders.description import EXPERT_FILE
from mmtpp.model.folders.folder import read_model_file

WEIGHTS_FILE = "expert.safetensors"
SURPRISE_SHARE = 0.001
"""Share of the validation events that are more surprising than ``Expert.surprise_limit``."""


@dataclass(frozen=True, slots=True)
class Expert:
    """A trained expert.

    Attributes:
        memory: Settings of the memory.
        tick: Tick of the clock, in the source's unit; 0 if the times have no tick.
        networks: The networks, in evaluation mode, all of the same size.
        image_px: Side of the images of the training store, in pixels; 0 without images.
        surprise_limit: Nats of time and type that ``1 - SURPRISE_SHARE`` of the validation events
            stay below; None without validation events.
    """

    memory: MemorySettings
    tick: float
    networks: tuple[ExpertNetwork, ...]
    image_px: int = 0
    surprise_limit: float | None = None

    @property
    def texts(self) -> TextSettings:
        """What the expert reads of texts."""
        return TextSettings(self.memory.has_texts, self.networks[0].size.num_words)

    @property
    def reads_images(self) -> bool:
        """Whether the expert reads images."""
        return self.networks[0].size.reads_images

    def save(self, folder: Path) -> None:
        """Write the expert into an existing local folder."""
        weights = {
            f"{index}.{name}": tensor.contiguous()
            for index, network in enumerate(self.networks)
            for name, tensor in network.state_dict().items()
        }
        save_file(weights, folder / WEIGHTS_FILE)
        settings = {
            "memory": asdict(self.memory),
            "network": asdict(self.networks[0].size),
            "num_networks": len(self.networks),
            "tick": self.tick,
            "image_px": self.image_px,
            "surprise_limit": self.surprise_limit,
        }
        (folder / EXPERT_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")


def load_expert(uri: str) -> Expert:
    """Load an expert from its folder, local or remote.

    Raises:
        ModelError: The files are damaged, or do not belong together.
        StorageError: The folder cannot be read.
    """
    try:
        tree = json.loads(_read(uri, EXPERT_FILE))
        weights = load(_read(uri, WEIGHTS_FILE))
        memory = MemorySettings(
            **tree["memory"]
            | {name: tuple(tree["memory"][name]) for name in ("counted_types", "calendar_periods")}
        )
        size, tick = NetworkSize(**tree["network"]), float(tree["tick"])
        if len(memory.column_names) != size.num_columns:
            raise ValueError(
                f"the memory has {len(memory.column_names)} columns, the networks expect "
                f"{size.num_columns}"
            )
        # folders of earlier versions have neither
        image_px, limit = int(tree.get("image_px", 0)), tree.get("surprise_limit")
        networks = [
            _load_network(weights, index, size, IntervalScale.from_memory(memory, tick=tick))
            for index in range(tree["num_networks"])
        ]
    except (KeyError, TypeError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"the expert cannot be loaded: {error}",
            where=uri,
            cause=f"{EXPERT_FILE} and {WEIGHTS_FILE} are damaged, of different models, or of an "
            "earlier version whose networks were others; train the expert again",
        ) from error
    return Expert(memory, tick, tuple(networks), image_px, limit)


def _read(uri: str, name: str) -> bytes:
    content = read_model_file(uri, name)
    if content is None:
        raise ValueError(f"{name} is missing")
    return content


def _load_network(
    weights: dict[str, torch.Tensor], index: int, size: NetworkSize, scale: IntervalScale
) -> ExpertNetwork:
    prefix = f"{index}."
    network = ExpertNetwork(size, scale)
    network.load_state_dict(
        {
            name.removeprefix(prefix): tensor
            for name, tensor in weights.items()
            if name.startswith(prefix)
        }
    )
    return network.eval()
