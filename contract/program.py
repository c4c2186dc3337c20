"""How every program ends: what its user can mend in one line, Ctrl-C and a closed pipe without a traceback.

if __name__ == "__main__":
    program.run(lambda: main(tyro.cli(Config)))

`python -X dev -m ...` shows the traceback all the same.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

INTERRUPTED = 130  # as a shell reports SIGINT
CLOSED_PIPE = 141  # and SIGPIPE


class UserError(Exception):
    """Base of every error that its user can mend; the message names cause and remedy."""


def run(
    main: Callable[[], object], *, stopped: str = "stopped", say: bool = True, also: tuple[type[Exception], ...] = ()
) -> NoReturn:
    """Run a program and exit with what `main` returns, where that is a number.

    UserError and OSError (a full disk, a read-only folder, a port that is taken) end it with status 1.

    stopped: what to say after Ctrl-C, which has the program clean up; a second one ends it at once
    also: libraries' errors over what a user gave, such as a table that lacks a column
    say: False for processes whose errors another one reports, such as all but the first of torchrun's
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="surrogateescape")  # a file's name is written as it is, UTF-8 or not
    expected: tuple[type[Exception], ...] = (UserError, OSError, *also)
    status, message = 0, ""
    try:
        result = main()
        status = result if isinstance(result, int) else 0
        if sys.stdout:
            sys.stdout.flush()
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
        status, message = INTERRUPTED, stopped
    except BrokenPipeError:  # whoever read has seen enough, as with `| head`
        status = CLOSED_PIPE
    except expected as error:
        if sys.flags.dev_mode:
            raise
        status, message = 1, "\n".join(f"error: {line}" for line in _words(error).splitlines())
    if say and message:
        with suppress(OSError):
            print(message, file=sys.stderr, flush=True)
    _let_go_of_output()
    sys.exit(status)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and not isinstance(error, UserError) and error.strerror:
        files = [str(name) for name in (error.filename, error.filename2) if name is not None]
        return ": ".join([" -> ".join(files), error.strerror] if files else [error.strerror])
    return str(error) or type(error).__name__


def _let_go_of_output() -> None:
    """Drop what cannot be written any more, which the interpreter would else complain of as it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream:
                stream.flush()
        except OSError:
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
