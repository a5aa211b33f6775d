"""Errors that a user can act upon: each message names the file, the value and the remedy."""


class CryopipeError(Exception):
    """Base of all errors that cryopipe raises on purpose."""


class InputError(CryopipeError):
    """An input (file, table, value) cannot be used. The message names it, the fault and the remedy."""


class ConfigError(InputError):
    """The configuration cannot be used. This is raised before any job starts."""


class ItemError(InputError):
    """One item (movie, micrograph) cannot be processed. It goes into quarantine and the run goes on."""


class DeviceError(CryopipeError):
    """A GPU was asked for, but none can run a kernel, or it is too small for the job."""
