"""The planner: components computed by hand, activations of a real forward pass, the command."""

import shlex
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.distributed._tools.mem_tracker import MemTracker
from transformers import Qwen2_5_VLForConditionalGeneration

from mmtpp.cli.main import main
from mmtpp.config.load import load_config
from mmtpp.config.schema import OptimizerPrecisionSection, OptimizerSection
from mmtpp.experiments.steepest_descent import rms_scale, steepest_direction
from mmtpp.model.attention import Segments, use_packed_attention
from mmtpp.model.full_size import full_size_config
from mmtpp.model.parameters.lora import attach_lora
from mmtpp.planner import memory as planner
from mmtpp.planner.memory import (
    DIRECTION_BYTES,
    GIB,
    Counts,
    GpuMemory,
    Option,
    Workload,
    count_sizes,
    estimate_memory,
    estimate_speed,
    recommend,
)
from mmtpp.train.optimizer.muon import orthogonal_rms_scale, orthogonalized
from tests.helpers.paths import ROOT
from tests.parity.families import CASES, random_base, write_base

CONFIGS = ROOT / "jobs" / "configs"

LORA_3B = Workload("3b", lora_rank=16, max_tokens=4096, samples_per_step=64)
SHARDED = Option(3, checkpointing=True, offload=False)


@pytest.fixture(scope="module")
def counts() -> Counts:
    return count_sizes(LORA_3B)


def test_parameters_are_those_of_the_model_cards(counts: Counts):
    adapters = 29_933_568 + 267 * 2048
    assert (counts.parameters, counts.trained) == (3_754_622_976 + adapters, adapters)
    assert counts.num_layers == 36


def test_a_folder_of_another_family_is_planned_by_its_config(tmp_path, capsys):
    case = CASES["llama, tied"]
    write_base(case, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    workload = Workload(str(tmp_path), lora_rank=4, max_tokens=256, samples_per_step=1)
    counts = count_sizes(workload)
    base = sum(parameter.numel() for parameter in random_base(case).parameters())
    # by hand: width 48, two key-value heads of 12, MLP 96
    shapes = [(48, 48), (48, 24), (48, 24), (48, 48), (48, 96), (48, 96), (96, 48)]
    adapters = 2 * sum(4 * (inputs + outputs) for inputs, outputs in shapes) + 267 * 48
    assert (counts.trained, counts.parameters) == (adapters, base + adapters)
    assert (counts.family, counts.num_layers, counts.embedding) == ("Llama", 2, 0)
    assert counts.layer_bytes > counts.layer_input_bytes > 0
    command = f"plan --model {tmp_path} --gpus 1 --gpu-gib 24 --max-tokens 256"
    main(shlex.split(command))
    printed = capsys.readouterr().out
    assert f"Llama {tmp_path}: " in printed
    assert f"--set model.path={tmp_path}" in printed


def test_the_command_prints_no_warnings_of_other_libraries(tmp_path):
    write_base(CASES["llama, tied"], tmp_path)
    command = f"-m mmtpp plan --model {tmp_path} --gpus 1 --gpu-gib 24 --max-tokens 256"
    process = subprocess.run(
        [sys.executable, *shlex.split(command)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stderr) == (0, "")
    assert "recommended: " in process.stdout


def test_memory_by_hand(counts: Counts):
    trained, total = counts.trained, counts.parameters
    two = estimate_memory(counts, LORA_3B, Option(2, checkpointing=True, offload=False), gpus=8)
    assert two.weights == pytest.approx(2 * total / GIB)
    assert two.optimizer == pytest.approx(12 * trained / 8 / GIB)
    assert two.activations == pytest.approx((36 * 4096 * 2048 * 2 + counts.layer_bytes) / GIB)
    three = estimate_memory(counts, LORA_3B, SHARDED, gpus=8)
    assert three.weights == pytest.approx(2 * total / 8 / GIB)
    offloaded = estimate_memory(
        counts, LORA_3B, Option(2, checkpointing=True, offload=True), gpus=8
    )
    assert (offloaded.optimizer, offloaded.host) == (0, two.optimizer)
    assert two.total - offloaded.total == pytest.approx(two.optimizer)


def test_states_of_all_optimisers_by_hand():
    """On the 3B with LoRA: Muon updates the factors, AdamW the 267 rows of tokens."""
    option = Option(2, checkpointing=True, offload=False)

    def optimizer_bytes(optimizer: OptimizerSection, stored: str = "float32") -> float:
        workload = replace(
            LORA_3B,
            optimizer=optimizer,
            optimizer_precision=OptimizerPrecisionSection(stored_states=stored),
        )
        return estimate_memory(count_sizes(workload), workload, option, gpus=8).optimizer * GIB

    factors, rows = 29_933_568, 267 * 2048
    muon = (4 * (factors + rows) + 4 * factors + 8 * rows) / 8
    assert optimizer_bytes(OptimizerSection(name="muon")) == pytest.approx(muon)
    storm = OptimizerSection(name="muon", variance_reduction=True)
    assert optimizer_bytes(storm) == pytest.approx(muon)
    workload = replace(LORA_3B, optimizer=storm)
    counts = count_sizes(workload)
    for offload in (False, True):  # the previous weights are on the GPU either way
        of_storm = estimate_memory(
            counts, workload, Option(2, checkpointing=True, offload=offload), gpus=8
        )
        expected = 2 * counts.parameters + 2 * (factors + rows)
        assert of_storm.weights * GIB == pytest.approx(expected)
    signs = OptimizerSection(name="signsgd")
    assert optimizer_bytes(signs) == pytest.approx(4 * (factors + rows) / 8)
    bits = (4 + 2 * (1 + 4 / 256)) * (factors + rows) / 8
    assert optimizer_bytes(OptimizerSection(), "int8") == pytest.approx(bits)


def test_memory_of_an_update_beyond_activations_by_hand():
    """The 3B's whole language model on one GPU, with short rows and thus small activations."""
    option = Option(1, checkpointing=True, offload=False)
    trained = 3_085_938_688  # from the model card

    def planned(optimizer: OptimizerSection, stored: str = "float32") -> GpuMemory:
        workload = replace(
            LORA_3B,
            lora_rank=0,
            max_tokens=64,
            optimizer=optimizer,
            optimizer_precision=OptimizerPrecisionSection(stored_states=stored),
        )
        counts = count_sizes(workload)
        assert counts.trained == trained
        return estimate_memory(counts, workload, option, gpus=1)

    assert planned(OptimizerSection()).update == 0
    codes = planned(
        OptimizerSection(), "int8"
    )  # one state at a time is float32 while it is written
    free = codes.activations + codes.logits
    assert codes.update == pytest.approx(4 * trained / GIB - free)
    muon = planned(OptimizerSection(name="muon")).update
    largest = 2048 * 11008  # a matrix of a feed-forward layer, smaller than a bucket
    copied = (
        4 * trained + 4 * 2**25 + 16 * largest
    )  # the momentum, a bucket, and the direction of one matrix
    assert muon == pytest.approx(copied / GIB - free)


@pytest.mark.parametrize(("name", "least"), [("muon", 11), ("steepest", 15)])
def test_a_direction_takes_no_more_memory_than_planned(name: str, least: float):
    """torch counts the memory on a fake GPU. A square matrix takes most. torch does not see the
    workspace that the library allocates for an SVD."""
    with FakeTensorMode():
        matrix = torch.empty((2048, 2048), device="cuda")
        tracker = MemTracker()
        tracker.track_external(matrix)
        with tracker:
            if name == "muon":
                assert (
                    orthogonalized(matrix) * orthogonal_rms_scale(matrix.shape)
                ).shape == matrix.shape
            else:
                direction = steepest_direction(matrix, "schatten", "inf")
                assert (direction * rms_scale(direction)).shape == matrix.shape
        (peak,) = tracker.get_tracker_snapshot("peak").values()
    taken = peak["Total"] / matrix.numel() - 4  # without the matrix itself
    assert least < taken < DIRECTION_BYTES + 0.01


def test_a_plan_omits_options_that_the_optimiser_does_not_allow(capsys: pytest.CaptureFixture[str]):
    command = "plan --model 3b --gpus 8 --gpu-gib 24 --optimizer muon --states bfloat16"
    main(command.split())
    out = capsys.readouterr().out
    assert "ZeRO-2" in out
    assert "ZeRO-3" not in out
    assert "offload," not in out
    assert "muon, states in bfloat16: 6.0 bytes per trained parameter" in out
    config = load_config(None, [*_printed_assignments(out), "model.path=x"])
    assert (config.optimizer.name, config.optimizer_precision.stored_states) == ("muon", "bfloat16")


@pytest.mark.parametrize("lora_rank", [0, 16])
def test_activations_are_those_of_a_real_forward_pass(
    monkeypatch: pytest.MonkeyPatch, lora_rank: int
):
    """One layer of the 3B, with real memory and the attention of training."""
    # the plan is for GPUs, which attend in bfloat16
    monkeypatch.setattr("mmtpp.model.attention.attention_dtype", lambda _, dtype: dtype)
    workload = Workload("3b", lora_rank=lora_rank, max_tokens=256, samples_per_step=1)
    expected = planner._saved_bytes(workload, 1)

    config = full_size_config("3b")
    config.text_config.num_hidden_layers = 1  # pyright: ignore[reportAttributeAccessIssue]
    config.text_config.layer_types = config.text_config.layer_types[:1]  # pyright: ignore[reportAttributeAccessIssue]
    config.text_config.vocab_size = 1024  # pyright: ignore[reportAttributeAccessIssue]
    config.vision_config.depth = 1  # pyright: ignore[reportAttributeAccessIssue]
    model = Qwen2_5_VLForConditionalGeneration(config)
    if lora_rank:
        attach_lora(model, list(range(267)), rank=lora_rank, alpha=64, dropout=0.1)
    model = model.to(torch.bfloat16).train()
    language_model = model.model.language_model
    use_packed_attention(language_model)
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            kept[storage.data_ptr()] = storage
        return tensor

    embeds = torch.randn(1, 256, 2048, dtype=torch.bfloat16).requires_grad_()
    segments = Segments((256,), torch.tensor([0, 256], dtype=torch.int32))
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        language_model(
            inputs_embeds=embeds,
            position_ids=torch.arange(256).expand(3, 1, -1),
            attention_mask={"full_attention": None},
            segments=segments,
            use_cache=False,
        )
    measured = sum(storage.nbytes() for storage in kept.values())
    assert measured == pytest.approx(expected, rel=0.05)


def test_speed_by_hand(counts: Counts):
    attention = 2 * 4096 * 2048 * 36  # two causal products of 4096 x 2048 in each layer
    forward = 2 * counts.parameters + attention
    backward = 2 * counts.parameters + 2 * counts.trained + 2 * attention
    speed = estimate_speed(counts, LORA_3B, SHARDED, gpus=8, tflops=312, mfu=0.35)
    assert speed.flops_per_token == pytest.approx(2 * forward + backward)  # recomputed once
    assert speed.tokens_per_s == pytest.approx(8 * 312e12 * 0.35 / speed.flops_per_token)


def test_an_option_that_fits_is_recommended(counts: Counts):
    generous = recommend(counts, LORA_3B, gpus=8, gpu_gib=80)
    tight = recommend(counts, LORA_3B, gpus=8, gpu_gib=12)
    assert generous is not None
    assert tight is not None
    assert not generous[0].checkpointing
    assert tight[0].stage == 3
    assert tight[1].total <= 0.9 * 12
    assert recommend(counts, LORA_3B, gpus=1, gpu_gib=4) is None


def _printed_assignments(text: str) -> list[str]:
    """The ``--set`` arguments that the command prints."""
    words = shlex.split(text[text.index("  --set ") :].replace("\\\n", ""))
    assert words[::2] == ["--set"] * (len(words) // 2)
    return words[1::2]


def test_the_command_prints_settings_that_a_job_accepts(capsys: pytest.CaptureFixture[str]):
    command = "plan --model 7b --gpus 16 --gpu-gib 80 --tokens 1e9 --usd-per-gpu-hour 2"
    assert main(command.split()) == 0
    text = capsys.readouterr().out
    config = load_config(CONFIGS / "qwen7b_lora_zero3.toml", _printed_assignments(text))
    assert (
        config.model.preset,
        config.training.num_workers,
        config.training.samples_per_step,
    ) == ("7b", 16, 16)
    assert "an epoch of 1,000,000,000 tokens" in text
    assert "USD" in text
    assert main(["plan", "--model", "7b", "--gpus", "1", "--gpu-gib", "8"]) == 1
    assert "the training does not fit 1 GPUs of 8 GiB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "samples"),
    [
        ([], 8),  # the default of the setting
        (["--config", str(CONFIGS / "qwen3b_lora.toml")], 16),
        (["--config", str(CONFIGS / "qwen3b_lora.toml"), "--samples-per-step", "32"], 32),
    ],
)
def test_the_batch_of_a_plan_is_that_of_the_settings(
    capsys: pytest.CaptureFixture[str], arguments: list[str], samples: int
):
    assert main(["plan", "--model", "3b", "--gpus", "4", "--gpu-gib", "24", *arguments]) == 0
    text = capsys.readouterr().out
    assert f"a step of {samples} samples" in text
    assert f"training.samples_per_step={samples}" in _printed_assignments(text)


def test_the_help_of_a_plan_imports_no_model_library():
    code = """
import sys
from mmtpp.cli.main import main
try:
    main(["plan", "--help"])
except SystemExit:
    print(sorted({"torch", "transformers", "deepspeed"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stderr == ""
