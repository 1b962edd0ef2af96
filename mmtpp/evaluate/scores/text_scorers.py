"""The scorers of texts from their libraries, which take seconds to load."""

from functools import lru_cache

from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenizers import Tokenizer
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.tokenizers.tokenizer_zh import TokenizerZh


class _Words(Tokenizer):
    def __init__(self) -> None:
        self._tokenizer = TokenizerZh()

    def tokenize(self, text: str) -> list[str]:
        """Split a text into words, in lower case."""
        return self._tokenizer(text.lower()).split()


@lru_cache(maxsize=1)
def load_scorers() -> tuple[RougeScorer, BLEU, CHRF]:
    """ROUGE-L, BLEU of a sentence and chrF; all calls return the same objects."""
    rouge = RougeScorer(["rougeL"], tokenizer=_Words())
    return rouge, BLEU(tokenize="zh", effective_order=True, lowercase=True), CHRF()
