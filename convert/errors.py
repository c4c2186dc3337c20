"""What can be wrong with a runtime or a model file, wherever it is loaded."""

from __future__ import annotations

from contract.program import UserError


class RuntimeUnavailableError(UserError, RuntimeError):
    """The runtime is not installed, or this machine cannot run it; the message says what to do."""


class ModelFileError(UserError, ValueError):
    """The file does not exist or is not what the runtime loads; the message says how to make it."""
