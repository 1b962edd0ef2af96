"""Make a plan: which events are in which sample.

Event store, Delta, template and context decide. The sequences of each file are cut into windows, by
Ray Data where there are many files; the driver packs the windows into samples. No image is decoded
and no text is tokenised, and only the ``hybrid`` strategy reads token ids, so a plan for another
Delta is cheap.
"""

import logging
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mmtpp.core.errors import DataError, MmtppError, error_from_json, error_to_json
from mmtpp.core.representation.packing import pack
from mmtpp.core.representation.tokens import TokenIds
from mmtpp.core.seeds import seed_from
from mmtpp.data.samples.long_texts import LongTexts
from mmtpp.data.samples.map_files import map_files
from mmtpp.data.samples.plan import WINDOW_SCHEMA, Plan
from mmtpp.data.samples.sample_settings import SampleSettings
from mmtpp.data.samples.sequence_windows import PLAN_SCHEMA, sequence_windows
from mmtpp.data.store.store_reader import StoreReader

logger = logging.getLogger(__name__)


def make_plan(settings: SampleSettings, token_ids: TokenIds) -> Plan:
    """Cut every sequence of a split into windows and pack them into samples.

    With ``new_targets.replay`` the samples of new targets come first, then those of older ones.

    Args:
        settings: Settings of the samples.
        token_ids: Token ids of the vocabulary.

    Raises:
        DataError: The split and time range have no event, or no new one, or an event does not fit
            and may not be cut.
    """
    plan = plan_split(settings, token_ids)
    check_plan(plan, settings)
    new = settings.new_targets
    if new is None or new.replay is None:
        return plan
    time_to = new.start if settings.time_to is None else min(new.start, settings.time_to)
    older = plan_split(replace(settings, new_targets=None, time_to=time_to), token_ids)
    plan = plan.with_older(older, replay=new.replay)
    logger.info("%s split: %s", settings.split, plan.describe_replay())
    return plan


def plan_split(settings: SampleSettings, token_ids: TokenIds) -> Plan:
    """Cut every sequence of a split into windows and pack them; the plan may have no sample.

    Older targets are left out. Arguments and errors are those of ``make_plan``.
    """
    table, long_texts = _plan_table(settings, token_ids)
    plan = plan_windows(
        table, settings.fingerprint, max_tokens=settings.max_tokens if settings.packed else None
    )
    return replace(plan, long_texts=long_texts)


def plan_windows(table: pa.Table, fingerprint: str, *, max_tokens: int | None) -> Plan:
    """Put windows into samples, in order of their sequences and first events before packing.

    Args:
        table: Windows, ``PLAN_SCHEMA``.
        fingerprint: Hash of settings and store.
        max_tokens: Capacity of a sample, in tokens; None makes every window a sample.
    """
    keys = [("sequence_id", "ascending"), ("start", "ascending")]
    order = pc.sort_indices(table, sort_keys=keys)  # pyright: ignore[reportAttributeAccessIssue] # pyarrow defines it at import
    order = order.to_numpy().astype(np.int64)
    offsets = np.arange(len(table) + 1)
    if max_tokens is not None:
        samples = pack(
            table["num_tokens"].to_numpy()[order],
            max_tokens=max_tokens,
            seed=seed_from("pack", fingerprint) % 2**63,
        )
        order, offsets = order[samples.windows], samples.offsets
    return Plan(
        windows=table.select(WINDOW_SCHEMA.names).take(pa.array(order)).combine_chunks(),
        offsets=offsets,
        num_events=int(np.sum(table["num_events"].to_numpy())),
        num_similar=int(np.sum(table["num_similar"].to_numpy())),
        fingerprint=fingerprint,
    )


def _plan_table(settings: SampleSettings, token_ids: TokenIds) -> tuple[pa.Table, LongTexts]:
    """The windows of all sequences, in any order, and what did not fit."""
    tables = map_files(
        plan_files,
        StoreReader(settings.store).files(),
        {"settings": settings, "token_ids": token_ids},
        machine_labels=settings.store.machine_labels,
    )
    table = pa.concat_tables(tables)
    problems = table.select(["sequence_id", "problem"]).filter(pc.field("problem") != "")
    for problem in problems.sort_by("sequence_id")["problem"].to_pylist():
        raise error_from_json(problem)
    if settings.max_sequences:
        names = table["sequence_id"].unique().sort()
        table = table.filter(pc.field("sequence_id").isin(names[: settings.max_sequences]))
    table, long_texts = _take_long_texts(table, settings)
    return table.combine_chunks(), long_texts


def _take_long_texts(table: pa.Table, settings: SampleSettings) -> tuple[pa.Table, LongTexts]:
    """Separate windows from counts of long texts, and log a warning about long texts.

    Raises:
        DataError: No question in words fits the context.
    """
    notes = table["long_texts"].drop_null().to_pylist()
    long_texts = LongTexts.sum(map(LongTexts.from_json, notes))
    table = table.filter(pc.field("end").is_valid())
    described = long_texts.describe(
        max_tokens=settings.max_tokens, max_text_tokens=settings.max_text_tokens
    )
    if long_texts:
        logger.warning("%s split: %s", settings.split, described)
    if len(table) == 0 and long_texts.left_out:
        raise DataError(
            f"no question to ask in the {settings.split} split",
            where=settings.store.data_uri,
            cause=described,
            setting=f"window.max_tokens = {settings.max_tokens}",
        )
    return table, long_texts


def check_plan(plan: Plan, settings: SampleSettings) -> None:
    """Check that a plan has a target, and the questions that it should ask.

    Args:
        plan: Result of ``plan_split``.
        settings: Settings of the samples.

    Raises:
        DataError: The plan has no target, or no question in words to ask.
    """
    if not plan.num_samples:
        raise _no_target_error(settings)
    has_questions = np.any(plan.windows["end_question"].to_numpy())
    if settings.supervision.asks_in_words and not has_questions:
        raise DataError(
            f"no sequence of the {settings.split} split has a question",
            where=settings.store.data_uri,
            cause="only source.kind = danmaku_qa has questions and answers",
            setting="tasks.qa",
        )


def _no_target_error(settings: SampleSettings) -> DataError:
    split, time_to = settings.split, settings.time_to
    if settings.new_targets is not None:
        name = "training" if split == "train" else split
        return DataError(
            f"no {name} event is new",
            where=settings.store.data_uri,
            cause=f"the store, or with split.by = time its {name} events, end before the time from "
            "which events are new, or no sequence is in the split; prepare the store again with "
            "the new events",
            setting=f"update.new_from, which is {settings.new_targets.start:g} in the source's "
            f"unit; window.time_to = {time_to}",
        )
    return DataError(
        f"no events to score in the {split} split",
        where=settings.store.data_uri,
        cause="no sequence is in the split (few sequences: split.by = time cuts each in time; "
        "or small split.*_fraction), or none has two events, or window.time_from and "
        "window.time_to leave nothing",
        setting=f"window.time_from = {settings.time_from}, window.time_to = {time_to}",
    )


def plan_files(files: pa.Table, *, settings: SampleSettings, token_ids: TokenIds) -> pa.Table:
    """Cut the sequences of files of the store into windows, in a Ray Data task or in this process.

    Args:
        files: Table with the column ``file``.
        settings: Settings of the samples.
        token_ids: Token ids of the vocabulary.

    Returns:
        Rows of ``PLAN_SCHEMA``. A fault is one row with a ``problem``: Ray Data would wrap an
        exception beyond recognition.
    """
    template = settings.build_template(token_ids)
    reader = StoreReader(settings.store)
    with_text = settings.compression.strategy == "hybrid"
    columns: dict[str, list] = {name: [] for name in PLAN_SCHEMA.names}
    try:
        names = files["file"].to_pylist()
        for sequence in reader.sequences(
            names, with_text=with_text, with_questions=settings.supervision.asks_in_words
        ):
            if len(range(*sequence.span(settings.split))):
                for name, values in sequence_windows(sequence, settings, template).items():
                    columns[name] += values
    except MmtppError as error:
        problem = {"problem": error_to_json(error), "sequence_id": "", "start": 0}
        return pa.Table.from_pylist([problem], PLAN_SCHEMA)
    return pa.table(columns, schema=PLAN_SCHEMA)
