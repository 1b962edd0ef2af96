"""Fields inside the objects of a record, by dotted names such as ``meta.time``.

A field whose name contains the dots literally has precedence.
"""

from collections.abc import Iterable, Sequence

import pyarrow as pa


def select_dotted(names: Iterable[str]) -> list[str]:
    """The names that may name a field inside an object."""
    return [name for name in names if "." in name]


def add_nested_fields(record: dict, names: Sequence[str]) -> dict:
    """A copy of a record with the named fields of its objects; the record itself without names.

    A field does not exist in a record if the record, or one of its objects, lacks a part of the
    name, or if the part is null. Such a field is not added.

    Args:
        record: Values by name.
        names: Dotted names.

    Raises:
        ValueError: A part of a name is neither an object nor null.
    """
    if not names:
        return record
    record = dict(record)
    for name in names:
        if name in record:
            continue
        parts, value = name.split("."), record
        for place, part in enumerate(parts):
            if value is None:
                break
            if not isinstance(value, dict):
                parent = ".".join(parts[:place])
                raise ValueError(
                    f"{name!r} needs an object in {parent!r}, which is {str(value)[:100]!r}"
                )
            if part not in value:
                break
            value = value[part]
        else:
            record[name] = value
    return record


def names_of_nested_fields(record: dict, names: Sequence[str]) -> list[str]:
    """Dotted names of the fields in the objects that ``names`` goes through, for messages.

    Args:
        record: Values by name.
        names: Dotted names.
    """
    found: dict[str, None] = {}
    for name in names:
        prefix, value = "", record
        for part in name.split(".")[:-1]:
            value = value.get(part)
            if not isinstance(value, dict):
                break
            prefix += f"{part}."
            found.update(dict.fromkeys(prefix + key for key in value))
    return list(found)


def struct_fields(schema: pa.Schema) -> list[str]:
    """Dotted names of the fields inside the structs of an Arrow schema."""

    def below(prefix: str, kind: pa.DataType) -> Iterable[str]:
        if pa.types.is_struct(kind):
            for place in range(kind.num_fields):
                name = f"{prefix}.{kind.field(place).name}"
                yield name
                yield from below(name, kind.field(place).type)

    return [name for field in schema for name in below(field.name, field.type)]
