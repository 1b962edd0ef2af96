"""The expert of a mixture with a language model: a folder of an expert with a gate.

The job ``combine`` fits the gate and writes the folder.

Axes: N events, K types of the language model.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmtpp.core.errors import ModelError
from mmtpp.core.forecasting.gate import Gate
from mmtpp.expert.expert_folder import Expert, load_expert
from mmtpp.model.folders.folder import read_model_file
from mmtpp.model.folders.record import load_trained_tasks

GATE_FILE = "gate.json"
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class GatedExpert:
    """An expert and its share of a mixture.

    Attributes:
        expert: The expert.
        type_codes: Codes of the types that the expert knows, in its order.
        gate: Weights of the language model; the expert has the remaining weights.
        fitted_with: Folder of the language model that the gate was fitted with, and of its adapter;
            None if the file does not say.
    """

    expert: Expert
    type_codes: tuple[int, ...]
    gate: Gate
    fitted_with: tuple[str, str] | None = None

    def arrange_types(self, log_probabilities: FloatArray, type_codes: Sequence[int]) -> FloatArray:
        """(N, K) log probabilities of the language model's types; -inf if the expert lacks a type.

        Args:
            log_probabilities: Log probabilities of the expert's types, one row for each event.
            type_codes: (K,) codes of the language model's types.
        """
        arranged = np.full((len(log_probabilities), len(type_codes)), -np.inf)
        place_of = {code: place for place, code in enumerate(type_codes)}
        places = [place_of[code] for code in self.type_codes if code in place_of]
        known = [index for index, code in enumerate(self.type_codes) if code in place_of]
        arranged[:, places] = log_probabilities[:, known]
        return arranged


def write_gate(gate: Gate, folder: Path, facts: dict[str, object]) -> None:
    """Write a gate into an expert's folder.

    Args:
        gate: The gate.
        folder: Local folder.
        facts: Further entries of the file, for readers: how the gate was fitted.
    """
    text = json.dumps(asdict(gate) | facts, indent=2)
    (folder / GATE_FILE).write_text(text, encoding="utf-8")


def load_gated_expert(uri: str) -> GatedExpert:
    """Load an expert and its gate.

    Args:
        uri: A folder that ``combine`` wrote, local or remote.

    Raises:
        ModelError: The folder has no gate, or its files are damaged.
        StorageError: The folder cannot be read.
    """
    content = read_model_file(uri, GATE_FILE)
    if content is None:
        raise ModelError(
            f"the folder has no {GATE_FILE}",
            where=uri,
            cause="only the job combine fits the gate between an expert and a language model; run "
            "jobs/combine.py and set model.expert to the folder that it writes",
            setting=f"model.expert = {uri}",
        )
    try:
        tree = json.loads(content)
        gate = Gate(float(tree["time"]), float(tree["type"]))
        model = tree.get("language_model")
        fitted_with = None if model is None else (str(model["path"]), str(model["adapter"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{GATE_FILE} is damaged: {error}", where=uri) from error
    trained_tasks = load_trained_tasks(uri)
    if trained_tasks is None:
        raise ModelError("the folder has no record of the expert's types", where=uri)
    return GatedExpert(load_expert(uri), trained_tasks.type_codes, gate, fitted_with)
