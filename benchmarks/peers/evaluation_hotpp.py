"""HoTPP's evaluation: ``Trainer.test`` of its module with its metric of the next event.

``forecasts``: the likelihood and the prediction of the next event; NHP and RMTPP predict the
expected time by thinning, with the settings of HoTPP's configuration for Stack Overflow.
``likelihood``: the same without the metric. The horizon metrics (OTD, T-mAP) are off in both: they
roll sequences out, which this project does in another command.
"""

import json
import logging
import tempfile
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytorch_lightning as pl  # pyright: ignore[reportMissingImports]
import torch
from hotpp.common import patch_precision_plugin  # pyright: ignore[reportMissingImports]
from hotpp.data import HotppDataModule  # pyright: ignore[reportMissingImports]
from hotpp.losses import (  # pyright: ignore[reportMissingImports]
    CrossEntropyLoss,
    NextItemLoss,
    NHPLoss,
    TimeRMTPPLoss,
)
from hotpp.metrics import HorizonMetric  # pyright: ignore[reportMissingImports]
from hotpp.modules import NextItemModule  # pyright: ignore[reportMissingImports]
from hotpp.nn import (  # pyright: ignore[reportMissingImports]
    GRU,
    ContTimeLSTM,
    Embedder,
    Head,
    RnnEncoder,
)

from benchmarks.peers.evaluation_measure import fastest, measure, num_parameters, parts_of
from benchmarks.peers.measured_process import run_as_trial

MAX_DELTA = 10.0  # mean training intervals
THINNING = {"max_steps": 100, "max_delta": MAX_DELTA, "bound_samples": 100}
TRAINING_BATCH = 64


def _write(folder: Path, sequences: dict[str, Any]) -> int:
    """Write HoTPP's Parquet files, in mean training intervals; returns the number of targets."""
    parts = parts_of(sequences["train"])
    scale = sum(times[-1] - times[0] for times, _ in parts)
    scale /= sum(len(times) - 1 for times, _ in parts)
    targets = 0
    for split in ("train", "test"):
        parts = parts_of(sequences[split])
        targets = sum(len(times) - 1 for times, _ in parts)
        columns = {
            "id": list(range(len(parts))),
            "timestamps": [[(time - times[0]) / scale for time in times] for times, _ in parts],
            "labels": [types for _, types in parts],
        }
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    return targets


def _module(model: str, num_types: int, hidden: int) -> NextItemModule:
    """HoTPP's module of a model, with its metric of the next event."""
    if model == "NHP":
        rnn, head = partial(ContTimeLSTM, hidden_size=hidden), partial(Head)
        loss = NHPLoss(num_types, thinning_params=THINNING)
    else:
        rnn = partial(GRU, hidden_size=hidden)
        head = partial(Head, hidden_dims=[hidden], use_batch_norm=True)
        time = TimeRMTPPLoss(init_influence=-0.1, thinning_params=THINNING)
        types = CrossEntropyLoss(num_types)
        loss = NextItemLoss(
            {"timestamps": time, "labels": types},
            prediction={"timestamps": "mean", "labels": "mode"},
        )
    embedder = Embedder({"labels": {"in": num_types, "out": 32}}, {"timestamps": "identity"})
    return NextItemModule(
        seq_encoder=RnnEncoder(embedder, rnn, max_time_delta=MAX_DELTA),
        loss=loss,
        head_partial=head,
        optimizer_partial=partial(torch.optim.Adam, lr=1e-3),
        test_metric=HorizonMetric(horizon=MAX_DELTA, max_time_delta=MAX_DELTA),
    )


def run(
    model: str, path: str, seconds: float, batches: list[int], hidden: int, epochs: int
) -> dict[str, Any]:
    """Train a model and evaluate it.

    Args:
        model: ``NHP`` or ``RMTPP``.
        path: File of the sequences.
        seconds: Largest wall seconds of training.
        batches: Sizes of batches, in parts of sequences; the fastest counts.
        hidden: Width of the network.
        epochs: Largest number of epochs.
    """
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    pl.seed_everything(0)
    sequences = json.loads(Path(path).read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        targets = _write(folder, sequences)
        module = _module(model, int(sequences["num_types"]), hidden)
        _trainer(max_epochs=epochs, max_time={"seconds": seconds}).fit(
            module, _data(folder, batches[0])
        )
        tester = _trainer()
        (scores,) = tester.test(module, _data(folder, batches[0]), verbose=False)
        measured = []
        for metric in (module._test_metric, None):
            module._test_metric = metric
            measured.append(
                {
                    batch: _measure(tester, module, _data(folder, batch), targets)
                    for batch in batches
                }
            )
    forecasts, likelihood = map(fastest, measured)
    return {
        "parameters": num_parameters([module]),
        "targets": targets,
        "accuracy": float(scores["test/next-item-accuracy"]),
        "forecasts": forecasts,
        "likelihood": likelihood,
    }


def _measure(
    tester: Any, module: NextItemModule, data: HotppDataModule, targets: int
) -> dict[str, float]:
    return measure(lambda: tester.test(module, data, verbose=False), targets)


def _data(folder: Path, batch: int) -> HotppDataModule:
    return HotppDataModule(
        train_path=f"{folder}/train.parquet",
        train_params={"batch_size": TRAINING_BATCH, "drop_last": False},
        val_path=f"{folder}/test.parquet",  # required, not read
        test_path=f"{folder}/test.parquet",
        test_params={"batch_size": batch},
        num_workers=0,
    )


def _trainer(**settings: Any) -> Any:
    trainer = pl.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        limit_val_batches=0,
        **settings,
    )
    return patch_precision_plugin(trainer)


if __name__ == "__main__":
    run_as_trial(run)
