"""Similarity of written texts and true texts: ROUGE-L, BLEU and chrF, computed by libraries.

Words are defined by sacrebleu's Chinese tokeniser: every Chinese character is a word, and Western
texts are split as in WMT. The tokeniser of ``rouge_score`` would drop Chinese characters.
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
        """Split a text into words, in lower case."""
        return self._tokenizer(text.lower()).split()


@lru_cache(maxsize=1)
def _scorers() -> tuple[RougeScorer, BLEU, CHRF]:
    rouge = RougeScorer(["rougeL"], tokenizer=_Words())
    return rouge, BLEU(tokenize="zh", effective_order=True, lowercase=True), CHRF()


def text_scores(truth: str, written: str) -> dict[str, float]:
    """Score one written text.

    Args:
        truth: The true text.
        written: The written text.

    Returns:
        ``TEXT_SCORES``, each from 0 to 1: ``rouge_l``, the F-measure; ``bleu``, the BLEU score of a
        sentence, with effective order and exponential smoothing (Chen and Cherry 2014), without
        regard to case; ``chrf``, over up to six characters, with beta 2.
    """
    rouge, bleu, chrf = _scorers()
    return {
        "rouge_l": float(rouge.score(truth, written)["rougeL"].fmeasure),
        "bleu": bleu.sentence_score(written, [truth]).score / 100,
        "chrf": chrf.sentence_score(written, [truth]).score / 100,
    }
