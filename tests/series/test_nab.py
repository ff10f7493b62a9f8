"""The NAB protocol against its worked pairs, hand-worked corpora and a slow scorer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.series import nab

SIGMA_1 = math.tanh(2.5)  # sigma(-1), as 2 / (1 + e^-2x) - 1 = tanh x
SERIES = 100  # rows, of which 15 are probation


def scores_at(*rows, length=SERIES):
    scores = np.zeros(length)
    scores[list(rows)] = 1.0
    return scores


def raw(scores, windows, profile=nab.STANDARD, threshold=0.5):
    return nab.sweep([nab.Scored(scores, windows)], profile).at(threshold)


@pytest.mark.parametrize(("y", "value"), [(-1, 0.98661), (-0.5, 0.84828), (0, 0.0)])
def test_sigmoid_at_the_published_places(y, value):
    assert nab.sigmoid(y) == pytest.approx(value, abs=5e-6)  # five published digits


@pytest.mark.parametrize(("given_raw", "value"), [(46.6345, 70.101), (57.6608, 74.854)])
def test_published_raw_scores_normalise_to_the_published_ones(given_raw, value):
    assert nab.normalized(given_raw, 116) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize("rows, early", [(100, 15), (1127, 169), (5000, 750), (22_695, 750)])
def test_probation_is_15_percent_and_750_rows_at_most(rows, early):
    assert nab.probation(rows) == early


def test_one_hand_worked_detection_early_and_late_in_a_window():
    window = [(40, 59)]  # 20 rows
    assert raw(scores_at(40), window) == pytest.approx(1.0)  # y = -1
    # y = (49 - 59 - 1) / 20 = -0.55 and sigma(-0.55) = tanh(1.375) = 0.879827
    assert raw(scores_at(49), window) == pytest.approx(0.879827 / 0.986614, abs=1e-6)
    # the last row is at y = -1/20: tanh(0.125) = 0.124353
    assert raw(scores_at(59), window) == pytest.approx(0.124353 / 0.986614, abs=1e-6)
    # the earliest counts, and no more than once
    assert raw(scores_at(40, 49, 59), window) == pytest.approx(1.0)


def test_hand_worked_false_positives():
    window = [(40, 59)]
    missed = -1.0
    # right after: y = 1 / 19, sigma = -tanh(2.5 / 19) = -0.130823
    assert raw(scores_at(60), window) == pytest.approx(missed - 0.11 * 0.130823, abs=1e-6)
    # one width after, y = 1
    assert raw(scores_at(78), window) == pytest.approx(missed - 0.11 * SIGMA_1)
    # three widths after, y = 3, the last row of the sigmoid: -tanh(7.5) is 6.1e-7 above -1
    values, _ = nab.row_values(SERIES, [(40, 50)])
    assert values[80] == pytest.approx(-0.99999939, abs=1e-8) and values[81] == -1
    # before any window, and far after a narrow one
    assert raw(scores_at(20), window) == pytest.approx(missed - 0.11)
    assert raw(scores_at(90), [(40, 44)]) == pytest.approx(missed - 0.11)
    assert raw(scores_at(14), window) == pytest.approx(missed)  # within probation
    assert raw(scores_at(15), window) == pytest.approx(missed - 0.11)  # just after it


def test_a_window_in_probation_is_not_there_and_one_at_its_edge_counts_after_it():
    assert nab.sweep([nab.Scored(scores_at(3), [(2, 8)])]).windows == 0
    partly = nab.sweep([nab.Scored(scores_at(12), [(10, 19)])])
    assert partly.windows == 1
    assert partly.at(0.5) == -1.0
    # row 16 of 10..19: y = -4/10, tanh(1) / tanh(2.5)
    assert raw(scores_at(16), [(10, 19)]) == pytest.approx(math.tanh(1) / SIGMA_1)


@pytest.mark.parametrize("profile", nab.PROFILES.values())
def test_null_is_0_and_perfect_is_100(profile):
    windows = [(30, 39), (60, 69)]
    corpus = [nab.Scored(scores_at(30, 60), windows), nab.Scored(np.zeros(SERIES), [])]
    swept = nab.sweep(corpus, profile)
    assert nab.normalized(swept.at(np.inf), swept.windows, profile) == pytest.approx(0)
    assert swept.best()[0] == 1.0
    assert nab.normalized(swept.best()[1], swept.windows, profile) == pytest.approx(100)


def slow(corpus, threshold, profile):
    """Every row in turn, from the definition."""
    total = 0.0
    for scores, windows in corpus:
        early = min(math.floor(0.15 * len(scores)), 750)
        best = {
            number: -profile.false_negative for number, w in enumerate(windows) if w[1] >= early
        }
        for row in range(early, len(scores)):
            if scores[row] < threshold:
                continue
            inside = [number for number, (a, b) in enumerate(windows) if a <= row <= b]
            after = [(a, b) for a, b in windows if b < row]
            if inside:
                a, b = windows[inside[0]]
                y = -(b - row + 1) / (b - a + 1)
                value = profile.true_positive * math.tanh(-2.5 * y) / SIGMA_1
                best[inside[0]] = max(best[inside[0]], value)
            elif after:
                a, b = after[-1]
                y = (row - b) / (b - a) if b > a else math.inf
                total += profile.false_positive * (-1 if y > 3 else math.tanh(-2.5 * y))
            else:
                total -= profile.false_positive
        total += sum(best.values())
    return total


@st.composite
def corpora(draw):
    corpus = []
    for _ in range(draw(st.integers(1, 3))):
        length = draw(st.integers(8, 60))
        edges = draw(st.lists(st.integers(0, length - 1), max_size=6, unique=True).map(sorted))
        windows = list(zip(edges[::2], edges[1::2], strict=False))
        levels = st.lists(st.integers(0, 4), min_size=length, max_size=length)
        corpus.append(nab.Scored(np.array(draw(levels), float), windows))
    return corpus


@settings(max_examples=25, deadline=None)
@given(corpora(), st.sampled_from(list(nab.PROFILES.values())))
def test_the_sweep_is_the_slow_scorer_at_every_threshold(corpus, profile):
    swept = nab.sweep(corpus, profile)
    for threshold in (*swept.thresholds, 0.5, 2.5, 9.0, -1.0):
        expected = slow(corpus, threshold, profile)
        assert swept.at(threshold) == pytest.approx(expected, abs=1e-9)  # float64 sums of 180 terms
        parts = nab.raw_scores(corpus, threshold, profile)
        assert parts.sum() == pytest.approx(expected, abs=1e-9)
    best = max(slow(corpus, threshold, profile) for threshold in swept.thresholds)
    assert swept.best()[1] == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "windows", "said"),
    [
        ([0.0, np.nan] * 20, [], "not finite"),
        ([[0.0]], [], "shape"),
        ([], [], "without a row after probation"),
        (np.zeros(40), [(20, 40)], "Window 0"),
        (np.zeros(40), [(20, 25), (24, 30)], "Window 1"),
        (np.zeros(40), [(25, 20)], "Window 0"),
    ],
)
def test_what_cannot_be_scored_gets_one_sentence(scores, windows, said):
    with pytest.raises(InputError, match=said):
        nab.sweep([nab.Scored(scores, windows)])


def test_a_corpus_without_windows_has_no_normalised_score():
    with pytest.raises(InputError, match="0 windows"):
        nab.normalized(0.0, 0)
