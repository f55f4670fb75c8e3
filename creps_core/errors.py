"""Errors that a user can act on."""


class CheckpointError(ValueError):
    """A checkpoint file that cannot be used: names the file, what was found, what to do."""


class NewerFormatError(CheckpointError):
    """A file of a later version of this program: nothing is wrong with it."""


class LatentsError(ValueError):
    """A file of latents or directions that cannot be used, or not with this generator: says why and what to do."""


class DatasetError(ValueError):
    """Pictures or labels to train on that cannot be used: names the folder or archive, what was found, what to do."""


class TrainingError(RuntimeError):
    """A training run that cannot begin or go on: says why and what to change."""


def require(good: bool, message: str) -> None:
    """Raises ValueError with the message unless all is `good`."""
    if not good:
        raise ValueError(message)
