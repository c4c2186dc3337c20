"""The numbered versions of a model in a Triton model repository. The server serves the highest.

A version appears and disappears by one rename, so a server that looks in between sees all of it or nothing. A number is
never given twice: what was rolled back stays beside the versions, under a name that the server passes over.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from contract.program import UserError
from contract.repository import RepositoryError, read_model_config, version_numbers

ROLLED_BACK = "rolled-back-"


class VersionError(UserError, RuntimeError):
    """The repository has no version to replace or to go back to, or serves another than the highest."""


@dataclass(frozen=True)
class ModelVersions:
    """Versions in a model's folder, such as model_repository/agegendernet."""

    folder: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other promotions of this model out, until the process ends at the latest. Raises VersionError."""
        try:
            descriptor = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise VersionError(f"{self.folder} cannot be read ({error.strerror}); name the model's folder") from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise VersionError(f"another promotion of {self.folder} is under way; wait for its end") from None
            yield
        finally:
            os.close(descriptor)

    def numbers(self) -> list[int]:
        """List them in order."""
        return version_numbers(self.folder)

    def path(self, number: int) -> Path:
        return self.folder / str(number)

    def current(self) -> int:
        """Return the version that is served. Raises VersionError where there is none."""
        if not (numbers := self.numbers()):
            raise VersionError(f"{self.folder} has no version yet; make the first one with make export")
        return numbers[-1]

    def previous(self) -> int:
        """Return the version before the one that is served. Raises VersionError where there is none."""
        if len(numbers := self.numbers()) < 2:
            raise VersionError(f"{self.folder} has no version before {self.current()} to go back to")
        return numbers[-2]

    def unused(self) -> int:
        """Return the next number that no version has or had."""
        retired = [path.name.removeprefix(ROLLED_BACK) for path in self.folder.glob(f"{ROLLED_BACK}*")]
        return max([*self.numbers(), *(int(name) for name in retired if name.isdecimal())], default=0) + 1

    def install(self, number: int, *, files: Mapping[str, Path], texts: Mapping[str, str]) -> Path:
        """Add a version: the current one's Python files, copies of `files`, and `texts`, each by its name in there."""
        staged = self.folder / f".promoting-{number}"
        shutil.rmtree(staged, ignore_errors=True)  # left by a run that was killed
        staged.mkdir()
        for source in self.path(self.current()).glob("*.py"):
            shutil.copyfile(source, staged / source.name)
        for name, source in files.items():
            shutil.copyfile(source, staged / name)
        for name, text in texts.items():
            (staged / name).write_text(text)
        return staged.rename(self.path(number))

    def retire(self, number: int) -> Path:
        """Take a version out of the server's sight, and keep it."""
        return self.path(number).rename(self.folder / f"{ROLLED_BACK}{number}")

    def restore(self, number: int) -> Path:
        """Undo `retire`."""
        return (self.folder / f"{ROLLED_BACK}{number}").rename(self.path(number))


def check_highest_is_served(folder: Path) -> None:
    """Raise VersionError unless every configuration of the model serves its highest version alone."""
    for path in (folder / "config.pbtxt", *sorted(folder.glob("configs/*.pbtxt"))):
        try:
            policy = read_model_config(path).version_policy
        except RepositoryError as error:
            raise VersionError(str(error)) from error
        if policy.WhichOneof("policy_choice") not in (None, "latest") or policy.latest.num_versions > 1:
            raise VersionError(
                f"{path} has a version_policy under which a new version does not replace the one before it; "
                "use version_policy: { latest { num_versions: 1 } }"
            )
