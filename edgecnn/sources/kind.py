"""The record that describes a kind of source: one row of the table."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edgecnn.registry import Part

if TYPE_CHECKING:
    from edgecnn.sources.model import ModelOptions, TrainedModel

Load: TypeAlias = "Callable[[str, ModelOptions], TrainedModel]"


@dataclass(frozen=True, kw_only=True)
class SourceKind:
    """A kind of source of networks: a row of the table. Creating it imports nothing heavy.

    Attributes:
        name: the row's name.
        form: the text that selects it, for help and messages: "torchvision:NAME".
        loads: a function (words, ModelOptions) → TrainedModel, imported when needed. It applies all of the user's
            options, or raises UnknownNameError, SourceError, WeightsError or SpecError.
        prefix: the part before the first ":", if it accepts all names with that prefix; "" for none.
        suffix: suffix of the files or folders that it accepts; "" for none.
        names: the names that it accepts, also used for suggestions; None where they can't be listed.
        takes: decides whether it accepts a name, where prefix, suffix and names are not enough.
        rebuilds: True if the same name builds the network again, for other labels and another size too, so that it can
            be trained, pruned and saved.
        runs_own_code: True if its name refers to the user's code, which runs only if the user has named it; see
            `own_code`.
    """

    name: str
    form: str
    loads: Part[Load]
    prefix: str = ""
    suffix: str = ""
    names: Callable[[], Iterable[str]] | None = None
    takes: Callable[[str], bool] | None = None
    rebuilds: bool = False
    runs_own_code: bool = False

    def recognises(self, words: str) -> bool:
        """Whether these words name a network of this kind; opens nothing."""
        prefix, colon, _ = words.partition(":")
        return (
            bool(colon and self.prefix and prefix == self.prefix)
            or self.takes_path(words)
            or (self.names is not None and words in self.names())
            or (self.takes is not None and self.takes(words))
        )

    def takes_path(self, words: str) -> bool:
        """Whether these words are the path of such a network."""
        return bool(self.suffix) and words.rstrip("/").endswith(self.suffix)

    def near(self) -> Iterable[str]:
        """Suggestions for a name that no kind accepts."""
        return (self.form,) if self.names is None else self.names()

    def load(self, words: str, options: ModelOptions) -> TrainedModel:
        """Load the network.

        Raises:
            MissingDependencyError: a package that this source needs is not installed.
            UnknownNameError, SourceError, WeightsError, SpecError: it cannot be loaded.
        """
        return self.loads.load(f"a network as {self.form}")(words, options)
