"""The settings that samples depend on, and their fingerprint."""

import hashlib
import json
from dataclasses import asdict, dataclass, field

from mmtpp.core.past.event_memory import MemorySettings
from mmtpp.core.representation.compression import Compression
from mmtpp.core.representation.supervision import AllTokens, Supervision, fingerprint_record
from mmtpp.core.representation.template import Template, TemplateSettings
from mmtpp.core.representation.tokens import TokenIds
from mmtpp.core.representation.window import TimeRange
from mmtpp.data.store.store_settings import StoreSettings


@dataclass(frozen=True, slots=True)
class NewTargets:
    """Samples whose targets are new events; earlier events are their history.

    Attributes:
        start: Time of the first new event, in the source's unit.
        replay: Number of older targets in an epoch for each new one, at least 0; None for a plan
            without older targets, as for scoring.
    """

    start: float
    replay: float | None = None

    def of_split(self, split: str) -> "NewTargets":
        """The same targets in a split; only training replays older ones."""
        return self if split == "train" else NewTargets(self.start)


@dataclass(frozen=True, slots=True)
class SampleSettings:
    """Everything the samples depend on, besides the content of the store.

    Attributes:
        store: Location and fingerprint of the store.
        compression: Rule that marks similar events.
        template: How an event is written.
        max_tokens: Maximum number of tokens in a sample.
        overlap_fraction: Part of a window that repeats events of the window before.
        time_from: Time of the first used event, in the source's unit; None for no bound.
        time_to: Time before which events are used, in the source's unit; None for no bound.
        split: ``train``, ``validation``, ``test`` or ``all``.
        max_sequences: Number of sequences to use, in order of their ids; 0 uses all.
        targets_delta: Events that temporal compression with this threshold drops are no targets.
        packed: Whether a sample holds several windows or one.
        seed: Seed of the job. The packing follows it, and so do the futures of an evaluation.
        supervision: Which tokens are labels and which questions are asked.
        max_text_tokens: Maximum number of tokens in a text; 0 truncates none.
        long_events: ``truncate`` or ``fail``, as ``window.long_events``.
        older_tokens: Maximum number of tokens of a window's older events, one token each; 0 for
            windows without them.
        memory: Settings of the memory in soft tokens; None without soft tokens, and in a plan,
            which does not depend on it.
        new_targets: Which targets are new; None for samples of all targets.
    """

    store: StoreSettings
    compression: Compression
    template: TemplateSettings
    max_tokens: int
    overlap_fraction: float
    time_from: float | None
    time_to: float | None
    split: str
    max_sequences: int
    targets_delta: float
    packed: bool
    seed: int
    supervision: Supervision = field(default_factory=AllTokens)
    max_text_tokens: int = 0
    long_events: str = "truncate"
    older_tokens: int = 0
    memory: MemorySettings | None = None
    new_targets: NewTargets | None = None

    @property
    def fingerprint(self) -> str:
        """Hash of the settings: equal for equal samples, wherever the store lies.

        Packing is seeded by this hash, and runs compare it, so settings of earlier versions keep
        theirs. A new field counts unless it is deleted here: always if samples never depend on it,
        at its default if they do not depend on it there. All fields, and a record that is hashed,
        are in ``tests/unit/data/samples/test_sample_fingerprint.py``.
        """
        tree = asdict(self)
        # the form of earlier versions
        tree["time_from"] = -1e300 if self.time_from is None else self.time_from
        tree["time_to"] = 1e300 if self.time_to is None else self.time_to
        for name in ("supervision", "long_events", "memory"):
            del tree[name]
        if not isinstance(self.supervision, AllTokens):
            tree["asking"] = fingerprint_record(self.supervision)
        if not self.max_text_tokens:
            del tree["max_text_tokens"]
        for name in ("older_tokens", "new_targets"):
            if not tree[name]:
                del tree[name]
        if self.template.calendar == "none":
            for name in ("calendar", "time_zone", "seconds_per_unit"):
                del tree["template"][name]
        if not self.template.type_words:
            del tree["template"]["type_words"]
        tree |= {"store": self.store.fingerprint, "image_px": self.image_px}
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    @property
    def full_tokens(self) -> int:
        """Maximum number of tokens of a window's events in full, and of their questions."""
        return self.max_tokens - self.older_tokens

    @property
    def image_px(self) -> int:
        """Side of the store's images in pixels."""
        return self.store.image_px

    @property
    def shows_images(self) -> bool:
        """Whether samples may contain images."""
        return self.template.images != "none"

    @property
    def time_range(self) -> TimeRange:
        """The times whose events are used."""
        return TimeRange(self.time_from, self.time_to)

    def build_template(self, token_ids: TokenIds) -> Template:
        """The template that writes the events."""
        has_questions = self.supervision.asks_questions
        return Template(token_ids, self.template, has_questions=has_questions)
