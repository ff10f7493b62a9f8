"""What can go wrong without a defect in the code; scripts print the message alone."""

import signal


class InputError(ValueError):
    """Something that the user gave cannot be used; a script ends with exit status 2.

    The message is one sentence that names what was given and what was expected.
    """


class DivergedError(RuntimeError):
    """A number is not finite any more; a script ends with exit status 1.

    The message names the step, what is not finite, the configuration and the last good checkpoint.
    """


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or is damaged; a script ends with exit status 1.

    The message names its path and, if there is one, the last good checkpoint.
    """


class Interrupted(RuntimeError):
    """A run was asked to stop, and stopped; a script ends with exit status 128 + `signal`.

    The message names the checkpoint from which it goes on.
    """

    def __init__(self, message: str, signal: signal.Signals):
        super().__init__(message)
        self.signal = signal
