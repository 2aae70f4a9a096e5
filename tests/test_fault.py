"""What failed, told the same way by a child, a board and a thread."""

from __future__ import annotations

import json

import pytest

from edgecnn import errors
from edgecnn.errors import (
    AccuracyError,
    DeviceError,
    EdgeCnnError,
    Fault,
    InternalError,
    MissingDependencyError,
    SpecError,
    UnknownNameError,
)


def test_an_error_of_every_class_comes_back_as_it_was() -> None:
    family = [EdgeCnnError]
    for parent in family:
        family += parent.__subclasses__()
    made = {
        UnknownNameError: UnknownNameError("model", "x", ["y"]),
        MissingDependencyError: MissingDependencyError("a", "b"),
    }
    for kind in family:
        error = made.get(kind) or kind("the reason")
        sent = json.loads(json.dumps(Fault.of(error).document()))
        back = Fault.from_document(sent).as_error()
        assert (type(back), str(back), back.exit_code) == (kind, str(error), error.exit_code)
        assert Fault.of(back) == Fault.of(error)


def test_a_foreign_exception_is_an_internal_failure_that_names_it() -> None:
    fault = Fault.of(ZeroDivisionError("division by zero"))
    assert (fault.kind, fault.reason, fault.exit_code) == ("ZeroDivisionError", "division by zero", 3)
    error = fault.as_error()
    assert type(error) is InternalError
    assert str(error) == "ZeroDivisionError: division by zero"


def test_a_crash_is_the_devices_and_says_how() -> None:
    error = Fault.crashed("SIGSEGV", "its process was killed by SIGSEGV").as_error()
    assert type(error) is DeviceError
    assert error.fault is not None
    assert error.fault.crash == "SIGSEGV"


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        "SpecError",
        {},
        {"kind": "SpecError"},
        {"kind": "os; rm", "reason": "x", "exit_code": 2},
        {"kind": 7, "reason": "x"},
        {"kind": "SpecError", "reason": ["x"]},
        {"kind": "SpecError", "reason": "x", "crash": 1},
    ],
)
def test_what_has_not_its_form_is_an_internal_failure(document: object) -> None:
    assert type(Fault.from_document(document).as_error()) is InternalError


@pytest.mark.parametrize("code", [0, -9, 4, True, "1", None, 1e9])
def test_an_exit_code_that_edgecnn_does_not_give_is_an_internal_failures(code: object) -> None:
    fault = Fault.from_document({"kind": "SpecError", "reason": "x", "exit_code": code})
    assert fault.exit_code in {1, 3}


def test_nothing_of_the_module_but_errors_can_be_named() -> None:
    for name in ("EdgeCnnError", "Fault", "Any", "difflib", "object", "KeyboardInterrupt"):
        error = Fault(name, "x").as_error()
        assert isinstance(error, EdgeCnnError)
    assert "difflib" in vars(errors)


def test_a_long_reason_is_cut() -> None:
    assert len(Fault.from_document({"kind": "SpecError", "reason": "x" * 10**6, "exit_code": 2}).reason) < 10**4


def test_the_last_line_of_a_command_line_is_a_fault() -> None:
    assert type(Fault.of_line("AccuracyError: too low", 1).as_error()) is AccuracyError
    assert type(Fault.of_line("Traceback", 2).as_error()) is SpecError
    assert Fault.of_line("UnknownError: x", 3) == Fault("DeviceError", "UnknownError: x", 3)
