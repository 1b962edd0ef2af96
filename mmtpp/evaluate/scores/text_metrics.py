"""Similarity of written texts and true texts: ROUGE-L, BLEU and chrF, computed by libraries.

Words are defined by sacrebleu's Chinese tokeniser: every Chinese character is a word, and Western
texts are split as in WMT. The tokeniser of ``rouge_score`` would drop Chinese characters.
"""

TEXT_SCORES = ("rouge_l", "bleu", "chrf")


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
    # loaded here, because most evaluations and forecasts write no texts
    from mmtpp.evaluate.scores.text_scorers import load_scorers

    rouge, bleu, chrf = load_scorers()
    return {
        "rouge_l": float(rouge.score(truth, written)["rougeL"].fmeasure),
        "bleu": bleu.sentence_score(written, [truth]).score / 100,
        "chrf": chrf.sentence_score(written, [truth]).score / 100,
    }
