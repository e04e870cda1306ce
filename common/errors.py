"""The exception tree: whatever Elign raises on purpose is an ``ElignError``.

ElignError
├── ConfigError        a setting is unknown or has a wrong value
├── DataError          a data file is missing, damaged or holds something else
├── CheckpointError    a checkpoint is missing, truncated or foreign
├── ForceFieldError    a force field cannot be loaded or refuses to work
├── StorageError       writing failed (full disk, no permission); the old file still stands
├── RolloutError       no plan could be completed by any actor
├── LearnerError       a learner died; its run goes on from the last checkpoint
├── ClusterError       a Ray cluster cannot be started or reached, or refuses a job
└── MonitoringError    Grafana cannot be reached, or refuses what it is sent

The front door prints the message of an ``ElignError`` and no traceback, so a message names the thing,
its value and the way out.
"""


class ElignError(Exception):
    """Base of all errors that Elign raises on purpose."""


class ConfigError(ElignError):
    """A setting is unknown or has a value that is not allowed."""


class DataError(ElignError):
    """A data file is missing, damaged, or not what it should be."""


class CheckpointError(ElignError):
    """A checkpoint is missing, truncated, or not one of ours."""


class ForceFieldError(ElignError):
    """A force field cannot be loaded, or failed as a whole."""


class StorageError(ElignError):
    """Writing failed; what stood there before still stands."""


class RolloutError(ElignError):
    """No rollout plan could be completed."""


class LearnerError(ElignError):
    """A learner died; what it had learned since the last checkpoint is lost."""


class ClusterError(ElignError):
    """A Ray cluster cannot be started or reached, or refuses a job."""


class MonitoringError(ElignError):
    """Grafana cannot be reached, or refuses what it is sent."""
