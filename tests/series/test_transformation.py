"""Transformations: hand-worked constants, identical bits row by row and after JSON, refusals."""

import math
from datetime import datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlab.errors import InputError
from nnlab.series import (
    Keys,
    Log,
    MinMax,
    OneHot,
    Robust,
    Standardize,
    TimeOfDay,
    TimeOfWeek,
    Transformation,
    fit_transformation,
    windows,
)
from nnlab.series.rows import Kind
from nnlab.series.tables import table_of

KINDS: dict[str, Kind] = {"x": "number", "t": "timestamp", "s": "text"}
ALL = [
    *((kind, "x") for kind in (Standardize, MinMax, Log, Robust)),
    *((kind, "s") for kind in (Keys, OneHot)),
    *((kind, "t") for kind in (TimeOfDay, TimeOfWeek)),
]


def table(values, column="x"):
    return table_of({column: KINDS[column]}, [{column: value} for value in values])


def applied(kind, fitted, given=None, column="x"):
    transformation = fit_transformation(table(fitted, column), [(kind, column)])
    return transformation.apply(table(fitted if given is None else given, column)).tolist()


def test_constants_by_hand():
    values = [1.0, 2.0, 3.0, 4.0, 10.0]  # mean 4, variance (9 + 4 + 1 + 0 + 36) / 5 = 10
    np.testing.assert_array_equal(
        applied(Standardize, values),
        np.array([[(v - 4) / math.sqrt(10)] for v in values], np.float32),
    )
    assert applied(MinMax, [2.0, 4.0, 6.0], [3.0, 8.0]) == [[0.25], [1.5]]
    assert applied(Robust, values) == [[-1.0], [-0.5], [0.0], [0.5], [3.5]]  # quartiles 2, 3, 4
    # log(1 + x) of e - 1 is 1, of 1 - e it is -1: mean 0, deviation 1.
    e = math.e
    assert applied(Log, [e - 1, 1 - e], [e**3 - 1]) == [[3.0]]


def test_keys_by_hand():
    assert applied(Keys, ["b", "a", "b"], ["a", "b", "c"], "s") == [[0], [1], [2]]
    assert applied(OneHot, ["b", "a"], ["b", "c"], "s") == [[0, 1, 0], [0, 0, 1]]


def test_times_by_hand():
    six = datetime(2024, 1, 1, 6)  # a Monday
    np.testing.assert_allclose(applied(TimeOfDay, [six], column="t"), [[1, 0]], atol=1e-16)
    noon_of_thursday = datetime(1960, 1, 7, 12)  # half of a week, before 1970
    found = applied(TimeOfWeek, [noon_of_thursday], column="t")
    np.testing.assert_allclose(found, [[0, -1]], atol=2e-16)


@pytest.mark.parametrize("kind", [Standardize, MinMax, Log, Robust])
def test_a_constant_column_becomes_zero_and_later_values_show(kind):
    values = [0.1] * 7  # whose computed deviation is not zero
    (still,), (later,) = applied(kind, values, [0.1, 1.1])
    assert still == 0 and 0.6 < later <= 1.0


def test_where_only_the_quartiles_coincide_the_deviation_divides():
    assert applied(Robust, [0.0] * 9 + [10.0], [6.0]) == [[2.0]]  # deviation 10 · 0.3


def test_outliers():
    plain = [float(n % 10) for n in range(100)]
    spoilt = plain[:-3] + [1e300] * 3
    before, after = (applied(Robust, values, [3.0])[0][0] for values in (plain, spoilt))
    assert abs(before - after) < 0.25  # quartiles moved by one step of 1 in a range of 5
    assert applied(Standardize, plain, [1e300, -1e300]) == [[1e4], [-1e4]]
    # Not even where the subtraction itself is too large for float64.
    assert applied(MinMax, [-1e308, 0.5e308], [1.7e308]) == [[1e4]]


@pytest.mark.parametrize("kind", [Standardize, MinMax, Robust])
def test_numbers_too_large_for_constants(kind):
    with pytest.raises(InputError, match=r"column 'x' has the offset .*, expected finite ones"):
        fit_transformation(table([-1.7e308, 1.7e308, -1.7e308, 1.7e308]), [(kind, "x")])


finite = st.floats(-1e100, 1e100)
rows = st.lists(
    st.fixed_dictionaries({"x": finite, "t": st.datetimes(), "s": st.text(max_size=3)}), min_size=1
)


@settings(max_examples=8, deadline=None)
@given(rows, rows, st.integers(1, 50), st.data())
def test_by_row_and_after_json_the_bits_are_the_same(fitted, later, window, data):
    stop = data.draw(st.integers(1, len(fitted)))
    transformation = fit_transformation(
        table_of(KINDS, fitted), ALL, rows=(0, stop), window=window, limit=1e6
    )
    again = Transformation.from_json(transformation.to_json())
    assert again == transformation
    assert [repr(a) for a in again.normalisers] == [repr(a) for a in transformation.normalisers]
    whole = transformation.apply(table_of(KINDS, later))
    assert whole.shape == (len(later), transformation.features) and whole.dtype == np.float32
    assert np.isfinite(whole).all()
    one_by_one = np.stack([again.apply_row(row) for row in later])
    assert one_by_one.tobytes() == whole.tobytes()


def test_only_the_given_rows_are_looked_at():
    first = fit_transformation(table([1.0, 3.0, 50.0]), [(MinMax, "x")], rows=(0, 2))
    assert first.normalisers == (MinMax("x", 1.0, 2.0),) and first.rows == (0, 2)
    for rows in ((0, 4), (2, 2), (-1, 2)):
        with pytest.raises(InputError, match=f"rows are {rows[0]} to {rows[1]}, expected some of"):
            fit_transformation(table([1.0, 3.0, 50.0]), [(MinMax, "x")], rows=rows)


def test_refuses_what_it_was_not_fitted_for():
    transformation = fit_transformation(table([1.0, 2.0]), [(MinMax, "x")])
    cases = [
        (lambda: transformation.apply(table(["a"], "s")), "has the columns 's', expected 'x'"),
        (lambda: transformation.apply_row({"y": 1.0}), "a row has the columns 'y', expected 'x'"),
        (lambda: transformation.apply_row({"x": "1"}), "a row has x = '1', expected a number"),
        (lambda: transformation.apply_row({"x": True}), "a row has x = True, expected a number"),
        (lambda: transformation.apply_row({"x": math.nan}), "row 0 of column 'x' is nan, expected"),
        (lambda: fit_transformation(table([1.0, math.inf]), ALL), "row 1 of column 'x' is inf"),
        (lambda: fit_transformation(table(["a"], "s"), [(MinMax, "s")]), "column 's' is a text, e"),
        (lambda: fit_transformation(table([1.0]), []), "a transformation has no columns"),
        (lambda: fit_transformation(table([1.0]), ALL[:1], window=0), "window is 0, expected at l"),
        (lambda: fit_transformation(table([1.0]), ALL[:1], limit=math.nan), "limit is nan, expec"),
    ]
    for case, message in cases:
        with pytest.raises(InputError) as error:
            case()
        assert message in str(error.value) and "\n" not in str(error.value)


def test_windows_by_hand():
    features = np.arange(8).reshape(4, 2)
    assert windows(features, 3).tolist() == [
        [[0, 1], [2, 3], [4, 5]],
        [[2, 3], [4, 5], [6, 7]],
    ]
    with pytest.raises(InputError, match="there are 4 rows, expected at least a window of 5"):
        windows(features, 5)
