"""How close written texts come to the true ones: ROUGE-L, BLEU and chrF of libraries.

Words are those of sacrebleu's Chinese tokeniser, which also takes Western texts as WMT does: every
Chinese character is a word. The tokeniser that comes with ``rouge_score`` would drop them.
"""

from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh

TEXT_SCORES = ("rouge_l", "bleu", "chrf")


class _Words(Tokenizer):
    def __init__(self) -> None:
        self._tokenizer = TokenizerZh()

    def tokenize(self, text: str) -> list[str]:
        """The words of a text, in lower case."""
        return self._tokenizer(text.lower()).split()


@lru_cache(maxsize=1)
def _scorers() -> tuple[RougeScorer, BLEU, CHRF]:
    rouge = RougeScorer(["rougeL"], tokenizer=_Words())
    return rouge, BLEU(tokenize="zh", effective_order=True, lowercase=True), CHRF()


def text_scores(truth: str, written: str) -> dict[str, float]:
    """``TEXT_SCORES`` of one text, each from 0 to 1.

    ``rouge_l`` is the F-measure; ``bleu`` that of a sentence, with effective order and exponential
    smoothing (Chen and Cherry 2014), without regard to case; ``chrf`` of six characters, beta 2.
    """
    rouge, bleu, chrf = _scorers()
    return {
        "rouge_l": float(rouge.score(truth, written)["rougeL"].fmeasure),
        "bleu": bleu.sentence_score(written, [truth]).score / 100,
        "chrf": chrf.sentence_score(written, [truth]).score / 100,
    }
