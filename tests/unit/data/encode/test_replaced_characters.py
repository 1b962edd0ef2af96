"""Characters that the vocabulary cannot write: counted in the manifest, kept in the texts."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import pytest

import mmtpp
from mmtpp.core.errors import DataError
from mmtpp.data.encode.encode_settings import EncodeSettings
from mmtpp.data.encode.tokenised_events import tokenise_sequences
from mmtpp.data.encode.totals import Totals
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.manifest import MANIFEST_FILE, find_manifest, load_manifest
from tests.helpers.steps import SETTINGS, encode_shard
from tests.helpers.unwritable import SMOLLM2_UNWRITABLE, tokenizer_without

TEXTS = ["\x13\U00040000 ü", "go", "\x13\U00040000 ü", "\x05"]  # U+0005 has a token
TOKENIZER = tokenizer_without(SMOLLM2_UNWRITABLE)


@pytest.fixture
def store(tmp_path: Path) -> str:
    raw = tmp_path / "raw"
    raw.mkdir()
    events = [
        {
            "time": float(place),
            "text": text,
            "image_path": None,
            "TPP_attribute": {"event_type": 0, "time_since_last_event": float(place > 0)},
        }
        for place, text in enumerate(TEXTS)
    ]
    (raw / "a.json").write_text(json.dumps(events))
    uri = str(tmp_path / "store")
    totals = Totals()
    totals.add(encode_shard(f"{uri}/data-x", ["a.json"], tokenizer=TOKENIZER, source_uri=str(raw)))
    settings = EncodeSettings(**{**SETTINGS, "source_uri": str(raw)})
    totals.build_manifest(settings, "request", "data-x", Vocabulary(TOKENIZER).hash).save(uri)
    return uri


def test_they_are_counted_in_every_event_and_the_texts_are_kept(store: str):
    assert load_manifest(store).characters_replaced == 4
    (sequence,) = mmtpp.load_sequences(store)
    assert list(sequence.texts) == TEXTS


def test_sequences_in_memory_give_a_warning(store: str, caplog: pytest.LogCaptureFixture):
    sequences = mmtpp.load_sequences(store)
    vocabulary = Vocabulary(TOKENIZER)
    with caplog.at_level(logging.WARNING):
        (events,) = tokenise_sequences(list(sequences), vocabulary)
    assert "4 characters of the texts have no token" in caplog.text
    ids = events.text_ids[: events.text_offsets[1]].tolist()
    assert vocabulary.decode_text(ids) == "\ufffd\ufffd ü"


def test_a_store_without_the_count_is_read_and_unknown_fields_are_not(store: str):
    path = Path(store) / MANIFEST_FILE
    tree = json.loads(path.read_text())
    del tree["characters_replaced"]
    path.write_text(json.dumps(tree))
    assert load_manifest(store).characters_replaced == 0
    path.write_text(json.dumps({**asdict(load_manifest(store)), "more": 1}))
    assert find_manifest(store, to_replace=True) is None
    with pytest.raises(DataError, match="schema version"):
        load_manifest(store)
