"""Models in GGUF files: weights, tokenizer, refusals and the record of the file."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from mmtpp.cli.main import main
from mmtpp.core.errors import ModelError, StorageError
from mmtpp.exchange.gguf_import import ARCHITECTURES, import_gguf
from mmtpp.model.folders.companions import read_companions
from mmtpp.model.folders.folder import local_folder
from mmtpp.storage.model_folder import source_tags
from tests.helpers.gguf_files import MERGES, SPECIAL, TEMPLATE, write_gguf, write_tokens

TEXT = "Roger\n12 go 345"


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict]:
    """A GGUF file, the folder that was written from it, and the weights of the model."""
    root = tmp_path_factory.mktemp("gguf")
    weights = write_gguf(root / "tiny.gguf", split_rule="smollm")
    import_gguf(str(root / "tiny.gguf"), str(root / "model"), precision="float32")
    return root / "tiny.gguf", root / "model", weights


def test_the_weights_are_those_of_the_model(imported):
    _, folder, weights = imported
    loaded, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert {key for key, names in report.items() if names} == set()
    state = loaded.state_dict()
    assert set(state) == {*weights, "lm_head.weight"}
    for name, tensor in weights.items():
        assert torch.equal(state[name], tensor), name


def test_the_folder_has_no_trace_of_the_quantised_file(imported):
    _, folder, _ = imported
    config = json.loads((folder / "config.json").read_text())
    assert not {"quantization_config", "_name_or_path", "_model_name_or_path"} & set(config)
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert {path.suffix for path in folder.iterdir()} == {".json", ".safetensors", ".jinja", ".md"}


def test_the_file_is_recorded_with_its_hash(imported):
    path, folder, _ = imported
    source = json.loads((folder / "model_source.json").read_text())
    assert source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (source["file"], source["license"]) == ("tiny.gguf", "apache-2.0")
    assert source_tags(str(folder)) == {
        "mmtpp.model_file": "tiny.gguf",
        "mmtpp.model_file_sha256": source["sha256"],
    }
    assert source_tags(str(path.parent)) == {}
    assert "model_source.json" in read_companions(str(folder))
    assert "license: apache-2.0" in (folder / "README.md").read_text()


def test_the_tokenizer_is_read_by_transformers(imported):
    _, folder, _ = imported
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(TEXT)["input_ids"]
    # "Ro" is the only merge; every digit and every other byte is a token
    assert tokenizer.convert_ids_to_tokens(ids) == [
        *("Ro", "g", "e", "r", "Ċ", "1", "2", "Ġ", "g", "o", "Ġ", "3", "4", "5"),
    ]
    assert tokenizer.decode(ids) == TEXT
    assert tokenizer("<|im_end|>")["input_ids"] == [SPECIAL.index("<|im_end|>")]
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|im_end|>", TEMPLATE)


@pytest.mark.parametrize(
    ("split_rule", "tokens"),
    [
        ("gpt-2", ["12", "3", "Ġ", "12", "Ċ", "12"]),
        ("smollm", ["1", "2", "3", "Ġ", "1", "2", "Ċ", "1", "2"]),
        ("qwen2", ["1", "2", "3", "Ġ", "1", "2", "Ċ", "1", "2"]),
        ("llama-bpe", ["123", "Ġ", "12", "Ċ", "12"]),  # a known word is one token
    ],
)
def test_digits_are_split_by_the_rule_of_the_file(tmp_path, split_rule: str, tokens: list[str]):
    merges = [*MERGES, "1 2", "12 4"]
    folder = write_tokens(tmp_path, split_rule, merges=merges, extra_tokens=["12", "123", "124"])
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.tokenize("123 12\n12") == tokens


@pytest.mark.parametrize("split_rule", ["gpt-2", "smollm", "qwen2", "llama-bpe"])
@pytest.mark.parametrize("text", ["a\u00e4\n\n 12\t", "x\x00\x7f\U0001f680 'll", "  你好 12345 "])
def test_texts_round_trip(tmp_path, split_rule: str, text: str):
    tokenizer = AutoTokenizer.from_pretrained(write_tokens(tmp_path, split_rule))
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_repeated_import_keeps_the_folder_and_another_model_is_refused(imported, capsys):
    path, folder, _ = imported
    changed = (folder / "config.json").stat().st_mtime_ns
    assert main(["import", str(path), str(folder)]) == 0
    assert "already there" in capsys.readouterr().out
    assert (folder / "config.json").stat().st_mtime_ns == changed
    assert main(["import", str(path), str(folder), "--precision", "bfloat16"]) == 1
    assert "has another model" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split_rule": "tekken"}, "rule tekken, which is unknown"),
        ({"kind": "llama"}, "of the kind llama, only byte-level BPE"),
        ({"architecture": "gemma3"}, f"gemma3; supported are {', '.join(ARCHITECTURES)}"),
        ({"scaling": "yarn"}, "scales its rotary positions"),
        ({"more_tensors": ("rope_freqs.weight",)}, "scales its rotary positions"),
    ],
)
def test_what_cannot_be_read_exactly_is_refused(tmp_path, changes: dict, message: str):
    write_gguf(tmp_path / "tiny.gguf", **changes)
    with pytest.raises(ModelError, match=message):
        import_gguf(str(tmp_path / "tiny.gguf"), str(tmp_path / "model"), precision="float32")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("size", [0, 3, 100, 5000, -1000])
def test_a_damaged_file_is_refused(imported, tmp_path, size: int):
    content = imported[0].read_bytes()
    (tmp_path / "cut.gguf").write_bytes(content[:size])
    with pytest.raises(ModelError, match="cannot be read as GGUF"):
        import_gguf(str(tmp_path / "cut.gguf"), str(tmp_path / "model"), precision="float32")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="there is no such file"):
        import_gguf(str(tmp_path / "no.gguf"), str(tmp_path / "model"), precision="float32")
    with pytest.raises(StorageError):
        import_gguf("ftp://host/no.gguf", str(tmp_path / "model"), precision="float32")


def test_a_gguf_file_as_model_path_names_the_command(imported):
    path = str(imported[0])
    with pytest.raises(ModelError, match=f"mmtpp import {path} FOLDER"), local_folder(path):
        pass
