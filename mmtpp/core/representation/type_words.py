"""The names of types as text tokens, which a template writes after the codes of the types."""

from collections.abc import Sequence

MAX_NAME_TOKENS = 6
"""Number of tokens after which a name is cut."""


def words_of_types(names: Sequence[Sequence[int]], blank: int) -> tuple[tuple[int, ...], ...]:
    """The tokens that stand for each type, the same number for all.

    All futures of a sequence are then equally long, whatever types they have.

    Args:
        names: Tokens of the name of each type, by code.
        blank: Token that fills shorter names up.
    """
    longest = min(max(map(len, names), default=0), MAX_NAME_TOKENS)
    return tuple((*name[:longest], *(blank,) * (longest - len(name))) for name in names)
