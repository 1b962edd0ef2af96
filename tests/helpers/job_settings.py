"""The configuration that tests on a cluster start from."""

from mmtpp.config.load import config_from_tree, with_values
from mmtpp.config.schema import RunConfig

SOURCE, STORE, RUNS = "s3://mmtpp/t/raw", "s3://mmtpp/t/store", "s3://mmtpp/t/runs"
STAGE_TWO = {"tasks.text": 0.5, "lora.rank": 8, "training.learning_rate": 1e-2}
EXPERT = {
    "model.preset": "expert",
    "expert.num_networks": 2,
    "expert.width": 32,
    "expert.events_per_step": 64,
    "expert.epochs": 40,
}


def make_config(**changes: object) -> RunConfig:
    config = config_from_tree(
        {
            "source": {"kind": "mmtpp", "uri": SOURCE},
            "store": {"uri": STORE},
            "split": {"validation_fraction": 0.25, "test_fraction": 0.2},
            "template": {"style": "minimal", "images": "on_change", "time_bytes": 2},
            "compression": {"delta": 0.5, "run_encoding": "run_length"},
            "window": {"max_tokens": 256},
            "model": {"tokenizer_size": 512},
            "lora": {"rank": 0},
            "run": {"storage_uri": RUNS},
            "training": {
                "num_steps": 12,
                "num_workers": 2,
                "samples_per_step": 4,
                "log_every": 1,
                "checkpoint_every": 4,
                "learning_rate": 3e-3,
                "validation_sequences": 3,
            },
        }
    )
    return with_values(config, changes)
