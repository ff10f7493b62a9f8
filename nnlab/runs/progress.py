"""A line on the terminal that says how a training run is doing.

    CNN  ━━━━━━━━━━━╺━━━━━━━━━━━━━━━━━━━━━  epoch 12/30  loss 0.0312  accuracy 98.91 %  …

It goes to standard error, so that standard output holds results alone and can be piped, and it
writes nothing at all when standard error is not a terminal: a log file gets no escape codes.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from nnlab.errors import needs

if TYPE_CHECKING:
    from rich.console import Console


@contextlib.contextmanager
def progress(
    name: str, epochs: int, console: "Console | None" = None
) -> Iterator[Callable[..., None]]:
    """Show a progress line while the `with` block runs.

        with progress("CNN", epochs=30) as report:
            report(epoch=1, loss=0.31, accuracy=0.91, examples_per_second=20_000.0)

    Args:
        name: what is being trained; shown as it is.
        epochs: the number of passes over the data.
        console: a `rich.console.Console` to draw on instead of standard error.

    Yields:
        `report(*, epoch, loss, examples_per_second, accuracy=None)`. All are numbers or arrays of
        shape []: epochs completed (a fraction moves the bar too), mean loss, examples trained on
        per second, and accuracy from 0 to 1. The time left is known from the second report on.
    """
    with needs("runs"):
        from rich import progress as rich_progress
        from rich.console import Console

    if console is None:
        # Left to itself rich also writes escape codes to a file when FORCE_COLOR is set.
        console = Console(stderr=True, force_terminal=sys.stderr.isatty())
    if not console.is_terminal or console.is_dumb_terminal:
        yield lambda **figures: None
        return

    display = rich_progress.Progress(
        rich_progress.TextColumn("{task.description}", markup=False),
        rich_progress.BarColumn(bar_width=None),  # with expand: the room that the text leaves
        rich_progress.TextColumn("epoch {task.completed:g}/{task.total:g}{task.fields[figures]}"),
        rich_progress.TimeRemainingColumn(),
        console=console,
        expand=True,
        refresh_per_second=2,
        speed_estimate_period=float("inf"),  # one epoch may outlast rich's window of 30 s
        redirect_stdout=sys.stdout.isatty(),  # a redirected print stays where the user sent it
    )
    with display:
        task = display.add_task(name, total=epochs, figures="")

        def report(
            *, epoch: float, loss: float, examples_per_second: float, accuracy: float | None = None
        ) -> None:
            right = "" if accuracy is None else f"  accuracy {100 * float(accuracy):.2f} %"
            rate = f"  {float(examples_per_second):,.0f} examples/s"
            figures = f"  loss {float(loss):.4f}{right}{rate}"
            display.update(task, completed=float(epoch), figures=figures)

        yield report
