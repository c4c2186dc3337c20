"""What can go wrong before a server answers. Each message is one line: the cause and the remedy.

ServingError
├── SetupError        something the server needs is missing
├── PreflightError    the server could not load an engine; a line for each reason
└── StartError        the server was started and did not come up, or fell ill
    ├── NoAnswerError a model gave no answer in time
    └── BusyError     a model refused, because it has too much to do
"""

from __future__ import annotations

from contract.program import UserError


class ServingError(UserError, RuntimeError):
    """Base of the errors of this package."""


class SetupError(ServingError):
    """A file, port, library or environment that the server needs is missing or taken."""


class PreflightError(ServingError):
    """Engines and server do not fit; each line names an engine, the reason and the command that mends it."""


class StartError(ServingError):
    """The server ended, or a model answers wrongly or not at all."""


class NoAnswerError(StartError):
    """A model gave no answer in time: it hangs, or has much to do."""


class BusyError(StartError):
    """A model refused because it has too much to do, so it is alive."""
