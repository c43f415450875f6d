"""What stores have in common: a database that is reached through its own driver, and what that says, in one line."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

from unprompt.backends.addresses import Address
from unprompt.errors import LibraryError

Own = TypeVar("Own", bound="Database")
Rest = ParamSpec("Rest")
Result = TypeVar("Result")


class Database(ABC):
    """A database at an address.

    Args:
        address: its, and the library's name there.
        driver: the module that talks to it.
        refusal: what that raises when the database cannot be reached or refuses.
    """

    def __init__(self, address: Address, driver: Any, refusal: type[Exception]) -> None:
        self.shown = address.shown
        self.driver = driver
        self.refusal = refusal

    @staticmethod
    @abstractmethod
    def said(error: Exception) -> str:
        """What a refusal says, in one line."""


def one_line(method: Callable[Concatenate[Own, Rest], Result]) -> Callable[Concatenate[Own, Rest], Result]:
    """Turns what a `Database` refuses into one line that names it."""

    @functools.wraps(method)
    def call(self: Own, /, *arguments: Rest.args, **options: Rest.kwargs) -> Result:
        try:
            return method(self, *arguments, **options)
        except self.refusal as error:
            raise LibraryError(f"{self.shown}: {self.said(error)}") from None

    return call
