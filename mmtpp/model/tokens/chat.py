"""Role tokens of a chat, chosen by the special tokens that a tokenizer has."""

from collections.abc import Container
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How the turns of a chat are written.

    Attributes:
        first: Token before the first turn; empty for none.
        open: Token before the name of a role.
        after_role: Token after the name of a role; empty for none.
        separator: Plain text between the name of a role and the content of its turn.
        close: Token after the content of a turn.
        after_close: Plain text between two turns; empty for none.
        end_of_text: Token at the end of an answer.
    """

    first: str
    open: str
    after_role: str
    separator: str
    close: str
    after_close: str
    end_of_text: str

    @property
    def tokens(self) -> tuple[str, ...]:
        """All special tokens of the format."""
        names = (self.end_of_text, self.open, self.close, self.first, self.after_role)
        return tuple(filter(None, names))


CHATML = ChatFormat("", "<|im_start|>", "", "\n", "<|im_end|>", "\n", "<|endoftext|>")
LLAMA_3 = ChatFormat(
    "<|begin_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "\n\n",
    "<|eot_id|>",
    "",
    "<|end_of_text|>",
)


def chat_format(special: Container[str]) -> ChatFormat:
    """The chat format of a tokenizer; ChatML, with tokens of its own, where it has none.

    Args:
        special: Names of the tokenizer's special tokens.
    """
    if all(name in special for name in LLAMA_3.tokens):
        return LLAMA_3
    return CHATML
