"""Pictures of a classification show the numbers that they are given."""

from typing import Any

import matplotlib.image
import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.figures.classification import Wrong, figure_confusion, figure_reliability, figure_wrong

COUNTS = np.array([[5, 0, 0], [1, 3, 0], [0, 0, 2]])


def images_of(axes):
    return [each for each in axes.get_children() if isinstance(each, matplotlib.image.AxesImage)]


def test_a_confusion_matrix_has_its_numbers_and_shades():
    figure = figure_confusion({"CNN": COUNTS, "BNN": COUNTS.T}, ("ant", "bee", "cat"))
    first, second = figure.axes
    texts = {(text.get_position(), text.get_text()) for text in first.texts}
    assert texts == {((0, 0), "5"), ((0, 1), "1"), ((1, 1), "3"), ((2, 2), "2")}
    shades: Any = images_of(first)[0]
    np.testing.assert_allclose(shades.get_array()[..., 3], np.sqrt(COUNTS / [[5], [4], [2]]))
    assert [label.get_text() for label in first.get_yticklabels()] == ["ant", "bee", "cat"]
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("CNN", "BNN")


def test_bars_of_reliability_are_accuracies():
    bins = {"count": [0, 1, 3], "confidence": [None, 0.5, 0.9], "accuracy": [None, 1.0, 0.5]}
    (axes,) = figure_reliability({"CNN": bins}).axes
    patches: Any = axes.patches
    right, share = (patch.get_data() for patch in patches)
    np.testing.assert_allclose(right.values, [0, 100, 50])
    np.testing.assert_allclose(share.values, [0, 25, 75])


def test_a_wrong_prediction_is_a_picture_with_two_names():
    grey, coloured = np.full((4, 4, 1), 200, np.uint8), np.zeros((4, 4, 3), np.uint8)
    wrong = [Wrong(grey, "ant", "bee", 0.987), Wrong(coloured, "a" * 30, "cat", 0.5)]
    first, second = figure_wrong(wrong).axes
    assert first.get_title() == "ant\nas bee\n99%"
    assert "a" * 17 + "…" in second.get_title()
    (picture,) = images_of(first)
    np.testing.assert_array_equal(picture.get_array(), grey[..., 0])


def test_nothing_to_draw_is_refused():
    with pytest.raises(InputError, match=r"\[\(3, 3\)\] were given"):
        figure_confusion({"CNN": COUNTS}, ("ant", "bee"))
    with pytest.raises(InputError, match="at least 1"):
        figure_reliability({})
    with pytest.raises(InputError, match="at least 1"):
        figure_wrong([])
