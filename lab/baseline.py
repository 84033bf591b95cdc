"""The supervised yardstick: logistic regression over TF-IDF of character n-grams, one model for each label family."""

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lab.texts import FAMILIES, Family, LabelledText


def baseline_accuracy(train: Sequence[LabelledText], dev: Sequence[LabelledText]) -> dict[Family, float]:
    """Accuracy on ``dev`` of the baseline trained on ``train``, for each family.

    Unlike the demo model it knows only the labels it was trained on, and reads no label's wording.
    """
    return {family: _accuracy(family, train, dev) for family in FAMILIES}


def _accuracy(family: Family, train: Sequence[LabelledText], dev: Sequence[LabelledText]) -> float:
    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 4), sublinear_tf=True, lowercase=True),
        LogisticRegression(C=30.0, max_iter=2000),
    )
    model.fit([text.text for text in train], [text.label(family) for text in train])
    return float(model.score([text.text for text in dev], [text.label(family) for text in dev]))
