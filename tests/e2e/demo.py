"""The demo's settings for short runs on a separate store."""

from mmtpp.config.load import load_config, with_values
from mmtpp.config.schema import RunConfig
from tests.helpers.paths import ROOT

RUNS = "s3://mmtpp/golden/runs"


def demo_config(name: str, **changes: object) -> RunConfig:
    return with_values(
        load_config(ROOT / "jobs/configs/demo.toml", []),
        {
            "store.uri": "s3://mmtpp/golden/store",
            "source.uri": "s3://mmtpp/golden/raw",
            "run.storage_uri": RUNS,
            "run.name": name,
            "training.log_every": 1,
            "training.validation_sequences": 0,
            **changes,
        },
    )
