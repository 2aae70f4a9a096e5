"""The table of tasks: our own and those of other packages (entry points `edgecnn.tasks`); imported on first use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from edgecnn.errors import SpecError, UnknownNameError, UnknownTaskError
from edgecnn.registry import Table

if TYPE_CHECKING:
    from edgecnn.results import Result
    from edgecnn.tasks.base import Task

GROUP: Final = "edgecnn.tasks"


class TaskTable(Table["type[Task]"]):
    """Tasks by name; a row is a class derived from `edgecnn.tasks.Task`.

    Args:
        rows: our own: name → "package.module:class".
        group: group of the entry points of other packages.
    """

    def __init__(self, rows: Mapping[str, str], *, group: str = GROUP) -> None:
        super().__init__("task", rows, record=type, group=group)
        self._readers: dict[type, type[Task]] = {}

    def get(self, name: str) -> type[Task]:
        """The task's class; see `Table.get`."""
        task = super().get(name)
        self._readers.setdefault(task.result, task)
        return task

    def search_again(self) -> None:
        """See `Table.search_again`."""
        super().search_again()
        self._readers.clear()

    def of(self, result: Result) -> type[Task]:
        """The task whose class methods read a result.

        Raises:
            SpecError: no task has results of this class.
        """
        found = self._readers.get(type(result))
        if found is None:
            found = self._readers[type(result)] = self._reader_of(type(result))
        return found

    def measured_by(self, metric: str) -> type[Task]:
        """A task with this metric.

        Raises:
            UnknownNameError: no task has it.
        """
        known = {task.metric: task for task in reversed(list(self))}
        if metric not in known:
            raise UnknownNameError("metric", metric, known)
        return known[metric]

    def fault(self, row: Any, name: str) -> str:
        """What another package's class lacks to be a task of this name; "" where it is complete."""
        from edgecnn.tasks.base import check_task

        try:
            check_task(row, name)
        except SpecError as owes:
            return str(owes)
        return ""

    def _reader_of(self, kind: type) -> type[Task]:
        for task in self:  # the result's module has been imported, but perhaps not its row
            self._readers.setdefault(task.result, task)
        for each in kind.__mro__:
            if each in self._readers:
                return self._readers[each]
        raise SpecError(
            f"no task has results of the class {kind.__module__}.{kind.__qualname__}: a task names the class of its "
            f"results (known: {', '.join(self.names())})"
        )


def decoded_task(table: TaskTable, kind: type, value: Any) -> Task:
    """For msgspec's `dec_hook`: the task that a JSON object describes, its class chosen by the field `kind`.

    Raises:
        UnknownTaskError: no installed package has this task.
        SpecError: the object is not such a task.
    """
    import msgspec

    from edgecnn.tasks.base import Task

    if kind is not Task:
        raise NotImplementedError(f"{kind} is not read from JSON")
    name = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(name, str):
        raise SpecError(f"task must be an object with the field 'kind', found {str(value)[:60]!r}")
    try:
        cls = table.get(name)
    except UnknownNameError as unknown:
        raise UnknownTaskError(
            f"the task {name[:60]!r} is not known here; the package that adds it (entry point group {GROUP}) may be "
            f"missing; known: {', '.join(table.names())}"
        ) from unknown
    task: Task = msgspec.convert(value, cls)
    return task
