"""What the tests of several rooms share."""

import numpy as np
import pytest
from hypothesis import strategies as st


def _one_or_two(largest):
    number = st.integers(1, largest)
    return number | st.tuples(number, number)


@st.composite
def _convolutions(draw):
    kernel_shape = tuple(draw(st.integers(1, most)) for most in (5, 4, 5, 6))
    strides, dilation = draw(_one_or_two(5)), draw(_one_or_two(3))
    pair = st.tuples(st.integers(0, 3), st.integers(0, 3))
    padding = draw(st.sampled_from(["SAME", "VALID", "SAME_LOWER"]) | st.tuples(pair, pair))
    sizes = []
    for axis, step in enumerate(np.broadcast_to(dilation, 2).tolist()):
        extent = (kernel_shape[axis] - 1) * step + 1
        pads = extent if padding in ("SAME", "SAME_LOWER") else 0  # then any size fits
        pads = pads if isinstance(padding, str) else sum(padding[axis])
        least = max(1, extent - pads)
        sizes.append(draw(st.integers(least, least + 6)))
    shape = (draw(st.integers(1, 3)), *sizes, kernel_shape[2])
    return shape, kernel_shape, dict(strides=strides, padding=padding, kernel_dilation=dilation)


@pytest.fixture(scope="session")
def convolutions():
    """Strategy of (shape of images, shape of a kernel, options of a convolution that fit them).

    Odd sizes, one channel, kernels as large as the padded image, strides beyond the kernel.
    """
    return _convolutions()
