"""Errors that a user can act on."""


class CheckpointError(ValueError):
    """A checkpoint file that cannot be used: names the file, what was found, what to do."""
