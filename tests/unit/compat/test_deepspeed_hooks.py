"""The private parts of DeepSpeed that the project uses still exist.

One rank trains a tiny module at every ZeRO stage, with a real engine.
"""

import inspect
import os
import re
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from mmtpp.compat import deepspeed_hooks

ROOT = Path(__file__).parents[3]
PROGRAM = """
import deepspeed, torch
from deepspeed.utils import safe_get_full_fp32_param
from mmtpp.compat import deepspeed_hooks as hooks

deepspeed.init_distributed("gloo", verbose=False)
for stage in (1, 2, 3):
    module = torch.nn.Linear(4, 3)
    plain = torch.optim.SGD(module.parameters(), lr=0.1)
    assert hooks.flat_partitions(plain) is None
    hooks.link_optimizer_states(plain)  # does nothing
    assert not hooks.has_fragment_mapping(module.weight)
    assert not hooks.is_sharded_by_zero3(module.weight)
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": {"stage": stage},
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
    }
    engine, *_ = deepspeed.initialize(model=module, optimizer=plain, config=config)
    outer = engine.optimizer
    weight = module.weight
    assert hooks.full_shape(weight) == (3, 4)
    assert hooks.full_numel(weight) == 12
    partitions = list(hooks.flat_partitions(outer))
    assert [group for _, group in partitions] == [0]
    assert partitions[0][0].dtype == torch.float32
    if stage == 3:
        assert hooks.is_sharded_by_zero3(weight)
        assert hooks.zero3_shard(weight).numel() == 12
        assert weight.numel() == 0
    else:
        assert hooks.has_fragment_mapping(weight)
        mapping = hooks.fragment_mapping(weight)
        assert (mapping.lp_fragment_address.start, mapping.lp_fragment_address.numel) == (0, 12)
        assert mapping.hp_fragment_address.numel == 12
        assert hooks.data_parallel_group(weight) is not None
        hooks.set_full_tensor(weight, torch.full((3, 4), 2.5), None)
        assert (safe_get_full_fp32_param(weight) == 2.5).all()
        plain.state[partitions[0][0]] = {"momentum": torch.zeros_like(partitions[0][0])}
        hooks.link_optimizer_states(outer)
        assert outer._hp_optimizer_states_linked
        hooks.set_full_tensor(weight, torch.full((3, 4), 1.5), "momentum")
        assert (plain.state[partitions[0][0]]["momentum"] == 1.5).sum() == 12
"""


def test_the_hooks_name_the_pinned_version():
    pinned = version("deepspeed")
    assert f"\ndeepspeed=={pinned}\n" in (ROOT / "constraints.txt").read_text()
    source = inspect.getsource(deepspeed_hooks)
    assert set(re.findall(r"DeepSpeed (\d+\.\d+\.\d+)", source)) == {pinned}


def test_every_hook_works_on_real_engines():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "DS_ACCELERATOR": "cpu",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_deepspeed_is_imported_without_mlflow():
    """The process checks itself, because DeepSpeed prints on standard output as it likes."""
    code = (
        "import sys; from mmtpp.compat.deepspeed_hooks import import_without_mlflow; "
        "import_without_mlflow(); "
        "assert 'deepspeed' in sys.modules; "
        "assert not [name for name in sys.modules if name.startswith('mlflow')]; "
        "import mlflow; import_without_mlflow(); "
        "assert sys.modules['mlflow'] is mlflow"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr
