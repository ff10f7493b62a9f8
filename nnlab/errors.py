"""What can go wrong without a defect in the code; scripts print the message alone."""


class InputError(ValueError):
    """Something that the user gave cannot be used; a script ends with exit status 2.

    The message is one sentence that names what was given and what was expected.
    """


class DivergedError(RuntimeError):
    """The loss is not finite any more; a script ends with exit status 1.

    The message names the steps, the configuration and the last good checkpoint.
    """
