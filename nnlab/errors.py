"""The one error that a user's input can cause."""


class InputError(ValueError):
    """Something that the user gave cannot be used.

    The message is one sentence that names what was given and what was expected. Scripts turn it
    into that sentence on standard error and exit status 2 (`nnlab.training.script.run`).
    """
