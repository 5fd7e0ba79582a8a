"""Small classifiers on frozen vectors, every list judged by one that was fitted on other lists."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from recsys.config.probes import ProbeConfig
from recsys.data.sequences import Int64
from recsys.errors import MissingExtraError
from recsys.evaluation.intervals import bootstrap

Floats = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


def predict_across_folds(
    vectors: Floats, classes: Int64, lists: Int64, config: ProbeConfig, seed: int
) -> Int64:
    """Return the predicted class of every example, int64 [M].

    The examples of one list are in one fold; the list's fold is drawn by the seed. Inputs are scaled by
    the mean and deviation of the fitting folds.

    Args:
        vectors: float32 [M, E].
        classes: int64 [M].
        lists: int64 [M], which list an example is of.
        config: folds, and the kind of classifier.
        seed: of folds and of a network's weights.
    """
    found = np.empty(len(classes), dtype=np.int64)
    names, place = np.unique(lists, return_inverse=True)
    rng = np.random.default_rng((seed, 2))
    fold = (rng.permutation(len(names)) % config.folds)[place]
    for which in range(config.folds):
        judged = fold == which
        if not judged.any():
            continue
        known = classes[~judged]
        if len(np.unique(known)) < 2:
            found[judged] = known[0]
            continue
        classifier = _classifier(config, seed)
        with warnings.catch_warnings():
            # The most iterations are enough to rank by; that it might go on is no news.
            warnings.filterwarnings("ignore", category=_convergence_warning())
            classifier.fit(vectors[~judged].astype(np.float64), known)
        found[judged] = classifier.predict(vectors[judged].astype(np.float64))
    return found


def _classifier(config: ProbeConfig, seed: int) -> Any:
    try:
        from sklearn.linear_model import LogisticRegression
        from sklearn.neural_network import MLPClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler
    except ImportError as error:
        raise MissingExtraError("scikit-learn", "probes") from error
    if config.classifier == "mlp":
        last: Any = MLPClassifier(
            (64,), alpha=1.0 / config.strength, max_iter=100, early_stopping=True, random_state=seed
        )
    else:
        last = LogisticRegression(C=config.strength, max_iter=300)
    return make_pipeline(StandardScaler(), last)


def _convergence_warning() -> type[Warning]:
    from sklearn.exceptions import ConvergenceWarning

    found: type[Warning] = ConvergenceWarning
    return found


def accuracy_row(
    classes: Int64, found: Int64, lists: Int64, config: ProbeConfig, seed: int
) -> dict[str, float | int]:
    """Return accuracy with its bootstrap interval over lists, and what guessing would reach.

    Keys: `value, low, high` (percentile bootstrap of lists, a list's examples staying together);
    `base`, the share of the largest class; `base_low, base_high`, between which the accuracy of whoever
    is right with that probability falls (binomial, two-sided, of as many trials as there are lists);
    `lists, examples, classes`.
    """
    from scipy.stats import binom

    names, place = np.unique(lists, return_inverse=True)
    right = (classes == found).astype(np.float64)
    means = np.bincount(place, right) / np.bincount(place)
    rng = np.random.default_rng((seed, 3))
    low, high = bootstrap(means[:, None], config.bootstrap, config.level, rng)
    counts = np.bincount(classes)
    base = float(counts.max() / counts.sum())
    tail, n = (1 - config.level) / 2, len(names)
    return {
        "value": float(means.mean()),
        "low": float(low[0]),
        "high": float(high[0]),
        "base": base,
        "base_low": float(binom.ppf(tail, n, base) / n),
        "base_high": float(binom.ppf(1 - tail, n, base) / n),
        "lists": n,
        "examples": len(classes),
        "classes": int((counts > 0).sum()),
    }
