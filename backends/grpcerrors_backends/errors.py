"""The errors that a backend raises; see Model."""


class LoadError(Exception):
    """A model cannot be loaded. The caller gets the text, so say what to do about it."""


class BadInput(Exception):
    """A request is invalid; the client gets INVALID_ARGUMENT. Say what was expected."""


class NotFound(Exception):
    """A request names something that does not exist, such as a voice; the client gets NOT_FOUND."""


class TooLarge(Exception):
    """A request exceeds a limit; the client gets RESOURCE_EXHAUSTED. Say what the limit is."""
