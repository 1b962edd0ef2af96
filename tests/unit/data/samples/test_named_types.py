"""The names of types in rows: of a store, of the API, and where types have no names."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import mmtpp
from mmtpp.api.history_reader import HistoryReader
from mmtpp.config.load import config_from_tree
from mmtpp.config.schema import RunConfig
from mmtpp.core.errors import ConfigError
from mmtpp.core.forecasting.interval_forecasts import IntervalRange
from mmtpp.core.representation.supervision import AllTokens, FollowingEvent
from mmtpp.core.representation.tokens import Modality
from mmtpp.data.from_config import build_sample_settings, build_template_settings, write_type_names
from mmtpp.data.samples.assemble import Assembler
from mmtpp.data.samples.make_plan import make_plan
from mmtpp.data.samples.plan import samples_table
from mmtpp.data.samples.row_table import row_from_arrow
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.sources.columns import Columns
from mmtpp.inspect.dataset import load
from mmtpp.inspect.measure import measure
from mmtpp.model.tokens.vocabulary import Vocabulary, train_tokenizer
from tests.helpers.manifests import sample_manifest
from tests.helpers.steps import encode_shard

NAMES = ("Nice Question", "Guru")
TOKENIZER = train_tokenizer([*NAMES] * 40, size=330)
VOCABULARY = Vocabulary(TOKENIZER)
IDS = VOCABULARY.token_ids()
COLUMNS = {"time": "t", "sequence": "s", "type": "k"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Source and store of one sequence with three events of two types."""
    folder = tmp_path_factory.mktemp("named")
    (folder / "raw").mkdir()
    (folder / "raw" / "events.csv").write_text("s,t,k\na,1,Guru\na,2,Nice Question\na,4,Guru\n")
    encode_shard(
        str(folder / "store"),
        ["events.csv"],
        tokenizer=TOKENIZER,
        source_uri=str(folder / "raw"),
        source_kind="columns",
        columns=Columns(**COLUMNS),
        type_names=NAMES,
    )
    return folder


def _config(folder: Path, types: str = "words", style: str = "dense") -> RunConfig:
    return config_from_tree(
        {
            "source": {"kind": "columns", "uri": str(folder / "raw"), "columns": COLUMNS},
            "store": {"uri": str(folder / "store")},
            "compression": {"strategy": "none"},
            "template": {"style": style, "images": "none", "time_bytes": 2, "types": types},
            "window": {"max_tokens": 512},
        }
    )


def _samples(config: RunConfig, names: tuple[str, ...] = NAMES, **more: Any) -> SampleSettings:
    manifest = sample_manifest(
        tick=0.0,
        type_names=names,
        occurring_types=(0, 1),
        vocabulary_hash=VOCABULARY.hash,
    )
    return build_sample_settings(config.sample_sections, manifest, split="train", **more)


def _row(settings: SampleSettings):
    plan = make_plan(settings, IDS)
    assert plan.windows["num_tokens"].to_pylist()
    table = Assembler(settings, IDS)(samples_table(plan, np.arange(1)))
    return row_from_arrow(table, 0, image_px=56)


def test_rows_have_the_names_and_never_as_a_label(folder: Path):
    row = _row(_samples(_config(folder), supervision=AllTokens()))
    named = row.modality == Modality.MASKED
    text = VOCABULARY.decode_text(row.input_ids[named].tolist())
    assert text.replace(" ", "") == "GuruNiceQuestionGuru"
    assert not named[row.label_positions()].any()


def test_without_names_the_order_of_samples_is_that_of_earlier_versions(folder: Path):
    plain = _samples(_config(folder, "code"))
    assert plain.template.type_words == ()
    other = replace(plain, template=replace(plain.template, type_words=((1,), (2,))))
    assert other.fingerprint != plain.fingerprint
    assert "type_words" not in _fingerprinted(plain)
    assert "type_words" in _fingerprinted(other)


def _fingerprinted(settings: SampleSettings) -> str:
    """The text whose hash is the fingerprint."""
    texts: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "mmtpp.data.samples.sample_settings.hashlib.sha256",
            lambda content: (texts.append(content.decode()), SimpleNamespace(hexdigest=str))[1],
        )
        _ = settings.fingerprint
    return texts[0]


def test_the_row_of_the_api_is_the_row_of_the_predict_job(folder: Path):
    config = _config(folder)
    grid = IntervalRange(1.0, 30.0, 1.0).grid(num_bytes=2)
    supervision = FollowingEvent(("time", "type"), grid.first_bytes)
    settings = replace(_samples(config, supervision=supervision), packed=False)
    words = write_type_names(NAMES, VOCABULARY, where="model")
    of_api = build_template_settings(config.sample_sections, seconds_per_unit=1.0, type_words=words)
    assert of_api == settings.template
    reader = HistoryReader(config, VOCABULARY, settings.build_template(IDS), ["time", "type"])
    [sequence] = mmtpp.load_sequences(str(folder / "raw"), columns=COLUMNS, types=NAMES)
    assert reader(sequence, grid).row.input_ids.tolist() == _row(settings).input_ids.tolist()


def test_types_without_names_are_refused(folder: Path):
    with pytest.raises(ConfigError, match="these types have none") as caught:
        _samples(_config(folder), names=())
    assert "template.types = words" in str(caught.value)
    # a temporal expert does not read the template
    assert _samples(_config(folder), names=(), reads_template=False).template.type_words == ()


def test_a_type_that_is_a_number_without_a_name_is_refused(folder: Path):
    with pytest.raises(ConfigError, match=r"the types \[1\] have none"):
        _samples(_config(folder), names=NAMES[:1])


def test_names_that_look_alike_are_a_warning(caplog: pytest.LogCaptureFixture):
    names = [f"{'Guru ' * 6}of {place}" for place in ("a", "b")]
    write_type_names(names, VOCABULARY, where="store")
    assert "1 of 2 types have the same first 6 tokens as others" in caplog.text
    caplog.clear()
    write_type_names(NAMES, VOCABULARY, where="store")
    assert caplog.messages == []


def test_soft_tokens_have_no_names(folder: Path):
    with pytest.raises(ConfigError, match="soft tokens have no names of types as text"):
        _samples(_config(folder, style="soft"))


def test_inspect_counts_the_tokens_of_the_names(folder: Path):
    sizes = {}
    for types in ("code", "words"):
        config = _config(folder, types)
        data = load(config.source, config.split, config.model, max_files=0)
        sizes[types] = measure(data, config.sample_sections, deltas=()).styles[0].tokens_per_event
    assert sizes["words"] > sizes["code"]
