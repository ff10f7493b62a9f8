"""The playground: a page in the browser that runs nnlab's own mathematics in any arithmetic.

    nnlab playground --open

The page trains small networks on points of the plane. Its layers, gradient rules, losses and
optimisers are nnlab's, traced by JAX and printed as JavaScript (`printer`); only drawing and
controls are written by hand (`nnlab/playground/browser`). `load` and `train` go on in Python with
what the page has saved.
"""

from nnlab.playground.network import Layer as Layer
from nnlab.playground.network import Settings as Settings
from nnlab.playground.page import write_page as write_page
from nnlab.playground.printer import print_function as print_function
from nnlab.playground.saved import Lesson as Lesson
from nnlab.playground.saved import begin as begin
from nnlab.playground.saved import load as load
from nnlab.playground.saved import train as train
