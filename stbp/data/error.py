"""The error of this room, in a file of its own so that it can be caught without importing torch."""


class DataError(ValueError):
    """A data set is missing, damaged or cannot be downloaded; the message is one line and says what to do."""


class NotInstalledError(DataError):
    """A library that a format needs is not installed: no fault of the file."""
