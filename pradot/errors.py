"""The one exception that PRADOT raises for what its user can mend."""


class PradotError(ValueError):
    """Something the user can mend; the message says what was looked for, what was found and what to do next.

    The command line prints the message alone, without a traceback.
    """
