"""The plans of a training run: which events are in its training and validation samples."""

import logging
from dataclasses import replace

import numpy as np

from mmtpp.config.schema import SampleSections
from mmtpp.core.errors import DataError
from mmtpp.core.representation.supervision import Supervision
from mmtpp.core.seeds import seed_from
from mmtpp.data.from_config import build_sample_settings
from mmtpp.data.prepared_store import PreparedStore
from mmtpp.data.samples.make_plan import check_plan, make_plan, plan_split
from mmtpp.data.samples.plan import Plan, load_plan
from mmtpp.data.samples.sample_settings import NewTargets, SampleSettings
from mmtpp.model.tokens.vocabulary import Vocabulary
from mmtpp.storage.paths import exists, join

logger = logging.getLogger(__name__)

PLAN_FILE, VALIDATION_PLAN_FILE = "plan.parquet", "validation_plan.parquet"


def plan_training_samples(settings: SampleSettings, vocabulary: Vocabulary, run_uri: str) -> Plan:
    """Load the run's plan, or make and save it.

    Args:
        settings: Settings of the training samples.
        vocabulary: Vocabulary of the store.
        run_uri: Folder of the run.

    Raises:
        DataError: The run was started with other data or settings.
    """
    uri = join(run_uri, PLAN_FILE)
    if not exists(uri):
        make_plan(settings, vocabulary.token_ids()).save(uri)
    # loaded, because the workers of this machine share the memory of a large plan
    plan = load_plan(uri, settings.store.open_disk_cache)
    if plan.fingerprint != settings.fingerprint:
        raise DataError(
            f"this run was started on data {plan.fingerprint[:16]}, the data is now "
            f"{settings.fingerprint[:16]}",
            where=uri,
            cause="the store or a setting that shapes samples changed under the same run name",
            setting="run.name: choose another, or leave it empty",
        )
    return plan


def plan_validation_samples(
    sections: SampleSections,
    store: PreparedStore,
    run_uri: str,
    *,
    num_sequences: int,
    supervision: Supervision,
    new_targets: NewTargets | None = None,
) -> SampleSettings | None:
    """Plan the validation on whole sequences, and save the plan.

    Without validation events in the store there is no validation. The same sequences are chosen for
    every Delta. If no validation event is new, all of them are targets.

    Args:
        sections: Sections of the configuration that shape samples.
        store: Store that the run reads.
        run_uri: Folder of the run.
        num_sequences: Number of sequences to validate on; 0 for no validation.
        supervision: Which tokens are labels and which questions are asked.
        new_targets: Which targets are new; None for all targets.

    Returns:
        Settings of the validation samples; None without validation.
    """
    if not num_sequences:
        return None
    manifest, token_ids = store.manifest, store.vocabulary.token_ids()
    if not manifest.sequences_by_split["validation"]:
        logger.warning(
            "the store has no validation events, so there is no validation (prepared with split.by "
            "= %s); raise split.validation_fraction and prepare the store again, or set "
            "training.validation_sequences = 0, now %d",
            manifest.split_by,
            num_sequences,
        )
        return None
    settings = build_sample_settings(
        sections, manifest, split="validation", supervision=supervision, new_targets=new_targets
    )
    # windows are not packed: each is a sample
    plan = plan_split(replace(settings, packed=False), token_ids)
    if new_targets is not None and not plan.num_samples:
        logger.warning("no validation event is new: the model is validated on the older ones")
        settings = replace(settings, new_targets=None)
        plan = plan_split(replace(settings, packed=False), token_ids)
    check_plan(plan, settings)
    _choose_sequences(plan, num_sequences).save(join(run_uri, VALIDATION_PLAN_FILE))
    return settings


def _choose_sequences(plan: Plan, num_sequences: int) -> Plan:
    """The windows of some sequences, each window a sample."""
    addresses = plan.windows.select(["file", "group", "row"]).to_pylist()
    names = [(address["file"], address["group"], address["row"]) for address in addresses]
    sequences = sorted(set(names))
    order = np.random.default_rng(seed_from("validation") % 2**63).permutation(len(sequences))
    chosen = {sequences[index] for index in order[:num_sequences].tolist()}
    return plan.with_single_windows([name in chosen for name in names])
