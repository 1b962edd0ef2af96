"""The fixed tokens of a template's styles."""

from dataclasses import dataclass

from mmtpp.core.representation.tokens import TokenIds

SOFT = "soft"
STYLES = ("paper", "compact", "minimal", "dense")


@dataclass(frozen=True, slots=True)
class Layout:
    """The fixed tokens of a style, in their order; some are empty.

    Attributes:
        prefix: Tokens before the first event.
        time_open, type_open, text_open, text_close: Tokens around the fields.
        calendar_blank: Tokens before the day and the time of day of the calendar.
        image_open: Tokens before the image pads; ``vision_end`` follows the pads.
        close: Tokens at the end of an event.
        similar_close: Tokens at the end of a similar event or a run.
        turn: Tokens between a question and its answer.
        answer_close: Tokens after an answer.
    """

    prefix: tuple[int, ...] = ()
    time_open: tuple[int, ...] = ()
    type_open: tuple[int, ...] = ()
    text_open: tuple[int, ...] = ()
    text_close: tuple[int, ...] = ()
    calendar_blank: tuple[int, ...] = ()
    image_open: tuple[int, ...] = ()
    close: tuple[int, ...] = ()
    similar_close: tuple[int, ...] = ()
    turn: tuple[int, ...] = ()
    answer_close: tuple[int, ...] = ()

    @classmethod
    def from_style(cls, ids: TokenIds, style: str, *, has_questions: bool = False) -> "Layout":
        """Build the layout of a style.

        Args:
            ids: Token ids of the vocabulary.
            style: One of ``STYLES``, or ``SOFT``.
            has_questions: Whether questions follow the events.
        """
        if style == SOFT:
            return cls()
        if style == "dense":
            return cls(image_open=(ids.vision_start,))
        if style == "minimal":
            return cls(text_close=(ids.text_end,), image_open=(ids.vision_start,))
        if style == "compact":
            return cls(
                time_open=(ids.time_start,),
                type_open=(ids.type_start,),
                text_open=(ids.text_start,),
                text_close=(ids.text_end,),
                image_open=(ids.vision_start,),
            )
        return cls(
            prefix=ids.chat_prefix if has_questions else ids.prefix,
            time_open=(ids.start_of_event, *ids.blank, ids.time_start),
            type_open=(ids.time_end, *ids.blank, ids.type_start),
            text_open=(ids.type_end, *ids.blank, ids.text_start),
            text_close=(ids.text_end,),
            calendar_blank=ids.blank,
            image_open=(*ids.blank, ids.vision_start),
            close=(*ids.blank, ids.end_of_event, *ids.line_break),
            similar_close=ids.line_break,
            turn=ids.chat_turn,
            answer_close=(ids.end_of_text,),
        )
