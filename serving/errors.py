"""What can go wrong before a server answers. Each message is one line: the cause and the remedy.

ServingError
├── SetupError   something the server needs is missing
└── StartError   the server was started and did not come up
"""


class ServingError(RuntimeError):
    """Base of the errors of this package."""


class SetupError(ServingError):
    """A file, port, library or environment that the server needs is missing or taken."""


class StartError(ServingError):
    """The server ended, or answered wrongly, before it was ready."""
