"""The report as text for a terminal."""

from collections.abc import Sequence

from mmtpp.core.split import SPLITS
from mmtpp.core.times.durations import TimeScale, format_duration
from mmtpp.inspect.measure import QUANTILES, Report, Representation


def as_text(report: Report) -> str:
    """All tables of the report as one text."""
    rejected = sum(report.rejected_by_cause.values())
    files = f"{report.num_files:,} files"
    if report.num_files < report.num_files_in_source:
        files = f"{report.num_files:,} of {report.num_files_in_source:,} files, evenly spread"
    parts = [
        f"{report.uri} ({report.kind}, {files})",
        f"{report.num_events:,} events in {report.num_sequences:,} sequences; "
        f"{report.num_read:,} read, {rejected:,} rejected, {report.num_reordered:,} reordered, "
        f"{report.num_disagreeing:,} whose declared interval differs from that of the times",
        _splits(report),
        *_rejections(report),
        *_files(report),
        f"tokens are counted with {report.vocabulary}",
    ]
    parts += [f"hint: {hint}" for hint in report.hints]
    header = ["", *(f"{order:.0%}" for order in QUANTILES)]
    table = [
        ["events per sequence", *map(_number, report.events_per_sequence)],
        [
            "interval",
            *(format_duration(value * report.seconds_per_unit) for value in report.interval),
        ],
        ["text tokens per event", *map(_number, report.text_tokens)],
    ]
    parts += ["", _table(header, table), ""]
    parts.append(
        f"times are counted in {TimeScale(report.seconds_per_unit).unit_in_full}; "
        f"intervals: {report.share_of_zero_intervals:.1%} zero, "
        f"{report.share_of_whole_intervals:.1%} whole numbers of the unit"
    )
    parts.append(
        f"texts: {report.num_distinct_texts:,} distinct, {report.share_of_empty_texts:.1%} empty"
    )
    parts.append(
        f"images: {report.num_events_with_image:,} events have one, {report.num_images:,} distinct "
        f"within their sequences, {report.share_of_image_changes:.1%} of events change the image, "
        f"{report.num_images_missing:,} files missing"
    )
    types = sorted(report.types.items(), key=lambda item: -item[1])
    shares = [f"{name} {count / report.num_events:.1%}" for name, count in types[:12]]
    more = f", and {len(types) - 12} more" if len(types) > 12 else ""
    parts.append(f"types: {', '.join(shares)}{more}")
    parts += _too_long(report)
    parts += [
        "",
        f"Compression, style {report.template['style']}, {report.max_tokens:,} tokens per context:",
        _choices(report.choices),
        "",
        "Template styles, with the compression of the settings:",
        _choices(report.styles),
    ]
    return "".join(map(_printable, "\n".join(parts)))


def _printable(character: str) -> str:
    """A printable character unchanged; the escape code of any other character.

    Names come from the data and must not send control sequences to the terminal.
    """
    return character if character.isprintable() or character == "\n" else repr(character)[1:-1]


def _splits(report: Report) -> str:
    sizes = [
        f"{split} {report.sequences_by_split[split]:,} sequences with "
        f"{report.events_by_split[split]:,} events"
        for split in SPLITS
    ]
    return f"splits (split.by = {report.split_by}): {', '.join(sizes)}"


def _files(report: Report) -> list[str]:
    """Lines about the formats of files, files and records without events, and rare types."""
    lines = []
    if report.files_read:
        formats = ", ".join(f"{count:,} {suffix}" for suffix, count in report.files_read.items())
        lines.append(f"  files read, by suffix: {formats}")
    if report.files_not_read:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.files_not_read.items())
        lines.append(f"  warning: files that were not read, by suffix: {kinds}")
    if report.folder_columns:
        columns = ", ".join(
            f"{name} ({count:,} values)" for name, count in report.folder_columns.items()
        )
        lines.append(f"  columns in the names of folders: {columns}")
    for kind, count in report.left_out_by_kind.items():
        lines.append(f"  records that are not events, {kind}: {count:,}")
    if report.num_folded:
        lines.append(f"  events of rare types, counted as type other: {report.num_folded:,}")
    return lines


def _rejections(report: Report) -> list[str]:
    lines = [f"  rejected, {cause}: {count:,}" for cause, count in report.rejected_by_cause.items()]
    lines += ["    " + example.message().partition("\n")[0] for example in report.rejected_examples]
    return lines + [f"  {sentence}" for sentence in report.losses]


def _too_long(report: Report) -> list[str]:
    lines: list[str] = []
    if report.num_texts_truncated:
        lines.append(
            f"texts longer than template.max_text_tokens = {report.max_text_tokens:,}: "
            f"{report.num_texts_truncated:,}; samples truncate them"
        )
    if report.num_too_long:
        lines.append(
            f"events that do not fit window.max_tokens = {report.max_tokens:,}: "
            f"{report.num_too_long:,}; samples truncate their texts, and window.long_events = fail "
            "refuses them; raise window.max_tokens, or set template.max_text_tokens"
        )
    lines += [
        f"    sequence {event.sequence!r}, event {event.event + 1}: {event.tokens:,} tokens"
        for event in report.too_long
    ]
    if report.num_too_long > len(report.too_long):
        lines.append(f"    and {report.num_too_long - len(report.too_long):,} shorter events")
    return lines


def _choices(choices: Sequence[Representation]) -> str:
    header = [
        "style",
        "strategy",
        "Delta",
        "compressed",
        "tokens per event",
        "events per context",
        "windows",
        "samples",
        "full",
    ]
    rows = [
        [
            choice.style,
            choice.strategy,
            f"{choice.delta:g}" if choice.strategy != "none" else "",
            f"{choice.compressed:.1%}",
            f"{choice.tokens_per_event:.1f}",
            f"{choice.events_per_context:.1f}" if choice.events_per_context else "all fit",
            f"{choice.num_windows:,}",
            f"{choice.num_samples:,}",
            f"{choice.full:.1%}",
        ]
        for choice in choices
    ]
    return _table(header, rows)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    full = [[*row, *[""] * (len(header) - len(row))] for row in [header, *rows]]
    widths = [max(len(row[place]) for row in full) for place in range(len(header))]
    lines = []
    for row in full:
        cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) and abs(value) < 1e9 else f"{value:.4g}"
