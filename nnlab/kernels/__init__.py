"""Fast bodies of the operations in `nnlab.ops`, and which of them serves."""

from nnlab.kernels.selection import Body as Body
from nnlab.kernels.selection import status as status
from nnlab.kernels.selection import use as use
from nnlab.kernels.terms import term_status as term_status
