"""The supervised yardstick: logistic regression over TF-IDF of character n-grams, one model for each label family."""

from collections.abc import Sequence

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from lab.texts import FAMILIES, Family, LabelledText


def baseline_accuracy(train: Sequence[LabelledText], dev: Sequence[LabelledText]) -> dict[Family, float]:
    """Accuracy on ``dev`` of the baseline trained on ``train``, for each family.

    Unlike the demo model it knows only the labels it was trained on, and reads no label's wording. Texts without a
    label in a family (composed ones may lack some) do not train that family.
    """
    return {family: _accuracy(family, train, dev) for family in FAMILIES}


def _accuracy(family: Family, train: Sequence[LabelledText], dev: Sequence[LabelledText]) -> float:
    known = [text for text in train if text.label(family)]
    model = make_pipeline(
        TfidfVectorizer(analyzer="char", ngram_range=(1, 3), sublinear_tf=True, min_df=2),
        LogisticRegression(C=10.0, max_iter=500),
    )
    model.fit([text.text for text in known], [text.label(family) for text in known])
    return round(float(model.score([text.text for text in dev], [text.label(family) for text in dev])), 4)
