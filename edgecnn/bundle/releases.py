"""Remembers which release of each bundle ran last on this machine, so that an older signed release is refused.

They are kept in `releases.json` of `$EDGECNN_STATE`, otherwise of `$XDG_STATE_HOME/edgecnn` (`~/.local/state/edgecnn`),
under the name in the bundle's signature. Whoever may write there can make older releases run.
"""

from __future__ import annotations

import logging
import os
import time
from datetime import datetime, timezone
from pathlib import Path

import msgspec

from edgecnn.atomic import storage_error, write_whole
from edgecnn.bundle.signature import Signed
from edgecnn.errors import SignatureError, StorageError
from edgecnn.locks import changing
from edgecnn.older_python import moment_of

STATE = "EDGECNN_STATE"
_FILE = "releases.json"
_LARGEST_BYTES = 8 << 20
_CLOCK_SLACK_S = 86400.0  # between the clocks of the signer and of this machine
_log = logging.getLogger(__name__)


class Ran(msgspec.Struct, frozen=True, kw_only=True):
    """The newest release that ran.

    Attributes:
        release: its number.
        digest: digest of what was signed.
    """

    release: int
    digest: str


def check_release(signed: Signed) -> None:
    """Check that no newer release of this name ran here.

    Raises:
        SignatureError: a newer one ran, or another bundle of the same release.
        StorageError: the record cannot be read.
    """
    _refuse_older(signed, _read(_file()).get(signed.name))


def remember_release(signed: Signed) -> None:
    """Record that a release ran; from now on older ones are refused.

    Raises:
        SignatureError: a newer one ran in the meantime.
        StorageError: it cannot be recorded.
    """
    file, ran = _file(), Ran(release=signed.release, digest=signed.digest)
    if _read(file).get(signed.name) == ran:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with changing(file):
            known = _read(file)
            _refuse_older(signed, known.get(signed.name))
            write_whole(file, msgspec.json.encode({**known, signed.name: ran}))
    except OSError as failed:
        raise _unusable(file, storage_error(file.parent, failed)) from failed
    except StorageError as failed:
        raise _unusable(file, failed) from failed


def check_expiry(signed: Signed) -> None:
    """Check that a signature has not expired, by this machine's clock.

    A clock before the day of signing cannot be right (a board without a battery, before it has the time): the expiry is
    then unknown, and the bundle runs, with a warning. Whoever can set the clock back could also set it to a day before
    the expiry.

    Raises:
        SignatureError: it has expired.
    """
    if not signed.expires_utc:
        return
    try:
        expires, made = (_seconds(text) for text in (signed.expires_utc, signed.signed_utc))
    except ValueError as wrong:
        raise SignatureError(f"{signed.name} is refused: its times cannot be read: {wrong}") from wrong
    now = time.time()
    if now >= expires:
        raise SignatureError(
            f"{signed.name} is refused: it expired on {signed.expires_utc}, and the clock says {_in_words(now)}; "
            "have a new release signed (edgecnn sign --expires)"
        )
    if now < made - _CLOCK_SLACK_S:
        _log.warning(
            "the clock says %s, but %s was signed on %s: the clock is wrong, and whether the bundle has expired (%s) "
            "cannot be told",
            *(_in_words(now), signed.name, signed.signed_utc, signed.expires_utc),
        )


def _refuse_older(signed: Signed, ran: Ran | None) -> None:
    if ran is None or signed.release > ran.release:
        return
    if signed.release < ran.release:
        raise SignatureError(
            f"{signed.name} is refused: it is release {signed.release}, and release {ran.release} ran here; to go "
            "back, sign the old files again as a new release"
        )
    if signed.digest != ran.digest:
        raise SignatureError(
            f"{signed.name} is refused: another bundle of the same name and release ({ran.release}) ran here; sign it "
            "again as a new release"
        )


def _file() -> Path:
    given, state = os.environ.get(STATE), os.environ.get("XDG_STATE_HOME")
    try:
        folder = Path(given) if given else (Path(state) if state else Path.home() / ".local" / "state") / "edgecnn"
    except RuntimeError as homeless:
        raise StorageError(f"there is no home folder to note releases in: set {STATE} to a folder") from homeless
    return folder / _FILE


def _read(file: Path) -> dict[str, Ran]:
    """Name → the newest release that ran; empty if none did.

    Raises:
        StorageError: it is damaged, another user's, or writable by others: then it is unknown what ran.
    """
    try:
        with file.open("rb") as there:
            state = os.fstat(there.fileno())
            raw = there.read(_LARGEST_BYTES)
    except FileNotFoundError:
        return {}
    except OSError as failed:
        raise StorageError(f"{file} cannot be read: {failed.strerror}; it tells which releases ran here") from failed
    if hasattr(os, "geteuid") and (state.st_uid not in (os.geteuid(), 0) or state.st_mode & 0o022):
        raise StorageError(
            f"{file} tells which releases ran here, but others may write it: chown it to the user that runs edgecnn, "
            "and chmod go-w"
        )
    try:
        return msgspec.json.decode(raw, type=dict[str, Ran])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as damaged:
        raise StorageError(
            f"{file} tells which releases ran here, and is damaged ({damaged}): remove it, and start the newest "
            "release of every bundle"
        ) from damaged


def _unusable(file: Path, failed: StorageError) -> StorageError:
    return StorageError(f"which release ran could not be noted: {failed}; set {STATE} to a folder that can be written")


def _seconds(text: str) -> float:
    moment = moment_of(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no time zone")
    return moment.timestamp()


def _in_words(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")
