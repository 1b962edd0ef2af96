"""The tasks of fine-tuning: questions about an event or a sequence that the model answers."""

from collections.abc import Sequence

from mmtpp.core.errors import ConfigError

HISTORY_TASK = 0
TASKS = {"time": 1, "type": 2, "joint": 3, "text": 4, "qa": 5}
"""Number of each task, which marks the labels of its answers: ``time``, the time code; ``type``,
the type given the history; ``joint``, the type given the history and the time; ``text``, the text
given time and image; ``qa``, the answer to a question in words about the whole sequence."""
DENSITY_TASKS = ("time", "type", "joint")
"""Tasks that models of densities answer: experts, and models of soft tokens."""
EVENT_TASKS = ("time", "type", "joint", "text")


def check_futures(tasks: Sequence[str], *, setting: str, where: str = "") -> None:
    """Check that a model can sample futures: it answers time, and type or joint.

    Args:
        tasks: Names of the tasks the model was, or will be, trained to answer.
        setting: Setting that requests futures, with its present value.
        where: Location of the model.

    Raises:
        ConfigError: The model was not trained on these tasks.
    """
    if "time" not in tasks or not {"type", "joint"} & set(tasks):
        raise ConfigError(
            "futures need a model that was trained to answer time, and type or joint",
            where=where,
            cause=f"the model was trained to answer {', '.join(tasks) or 'no task'}; run "
            "jobs/finetune.py with tasks.time, and tasks.type or tasks.joint, above 0",
            setting=setting,
        )
