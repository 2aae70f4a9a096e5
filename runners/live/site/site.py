"""Several cameras of one file: started, watched, and reloaded while the untouched ones go on."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Final

from edgecnn.errors import EdgeCnnError, SpecError
from edgecnn.runners.live.loop.counters import LiveCounters, why_stuck
from edgecnn.runners.live.run_summary import RunSummary
from edgecnn.runners.live.service.notify import ServiceNotifier
from edgecnn.runners.live.site.camera_run import CameraRun
from edgecnn.runners.live.site.log_lines import log
from edgecnn.runners.live.site.plan import CameraPlan, NetworkPlan, SitePlan
from edgecnn.runners.live.site.shared_sinks import SharedSink, shared_page
from edgecnn.runners.runner import Runner

_WAKE_S: Final = 0.2
_LOOK_S: Final = 5.0
_CLOSE_S: Final = 1.4  # for all cameras: a program ends within two seconds


class PlanError(SpecError):
    """A file that asks for something impossible; lists every fault."""

    @classmethod
    def listing(cls, file: str, faults: Sequence[str]) -> PlanError:
        """With one line for each fault."""
        count = "1 error" if len(faults) == 1 else f"{len(faults)} errors"
        return cls("\n".join([f"{file} has {count}:", *(f"  {fault}" for fault in faults)]))


@dataclass(frozen=True, kw_only=True)
class SiteSummary:
    """What several cameras did.

    Attributes:
        cameras: by name; what each one's last run did, None where it never ran.
        faults: by name, why a camera failed.
        reloads: how often the file was read again and followed.
        signal: number of the signal that ended it, or None.
    """

    cameras: dict[str, RunSummary | None]
    faults: dict[str, str] = field(default_factory=dict)
    reloads: int = 0
    signal: int | None = None


class Site:
    """Several cameras, each in threads of its own; networks are opened once and answer in turns.

    Args:
        plan: what they are to do.
        read_again: returns the plan anew, for `reload`; raises SpecError or DataError.

    Attributes:
        plan: what they do now.
        cameras: those that run now, by name, in the plan's order.
        page_url, page_login_url: the page's address, without and with the token that it made; None where there is none.
    """

    def __init__(self, plan: SitePlan, read_again: Callable[[], SitePlan] | None = None) -> None:
        self.plan, self._read_again = plan, read_again
        self.cameras: dict[str, CameraRun] = {}
        self._networks: dict[NetworkPlan, Runner] = {}
        self._ended: dict[str, CameraRun] = {}
        self._total = LiveCounters()
        self._counters: dict[str, LiveCounters] = {}
        self._shared = {name: SharedSink(name) for name in ("web", "metrics")}
        self._reloads = 0
        self._notifier = ServiceNotifier()
        self._stuck, self._next_look_s = "", 0.0
        self._signals: queue.SimpleQueue[int] = queue.SimpleQueue()

    @property
    def page_url(self) -> str | None:
        """The page's address without the token."""
        return getattr(self._shared["web"].behind, "url", None)

    @property
    def page_login_url(self) -> str | None:
        """The page's address with the token that was made."""
        return getattr(self._shared["web"].behind, "login_url", None)

    @property
    def metrics_url(self) -> str | None:
        """The address of the metrics; None where there are none."""
        return getattr(self._shared["metrics"].behind, "url", None)

    def run(self) -> SiteSummary:
        """Run until all cameras have ended, or SIGINT or SIGTERM; SIGHUP reloads.

        Raises:
            BundleError, DeviceError, MissingDependencyError: a network cannot be opened, or the page not be served.
        """
        with self._handling_signals():
            try:
                self._follow(self.plan)
                self._notifier.ready(self._status())
                number = self._wait()
            finally:
                self._notifier.stopping()
                self._stop_all()
        return self._summary(number)

    def reload(self) -> bool:
        """Read the plan again and follow it; cameras whose part is unchanged run on. False where it is wrong.

        A wrong plan changes nothing: what is wrong is logged.
        """
        if self._read_again is None:
            return False
        self._notifier.reloading()
        try:
            plan = self._read_again()
            if faults := plan.faults():
                raise PlanError.listing("the file", faults)
            self._follow(plan)
        except EdgeCnnError as wrong:
            for line in str(wrong).splitlines():
                log(f"not reloaded: {line.strip()}", level=logging.ERROR)
            return False
        finally:
            self._notifier.ready(self._status())
        self._reloads += 1
        log(f"reloaded: {len(self.cameras)} cameras")
        return True

    def _follow(self, plan: SitePlan) -> None:
        """Open what is new, then stop what is gone or changed, then start the rest."""
        old = {name: camera.plan for name, camera in self.cameras.items()}
        wanted = {camera.name: camera for camera in plan.cameras}
        for network in plan.networks():
            if network not in self._networks:
                self._networks[network] = network.open()
        leaving = [name for name, before in old.items() if wanted.get(name) != before]
        self._stop([self.cameras.pop(name) for name in leaving], forgotten=set(old) - set(wanted))
        fresh = [camera for name, camera in wanted.items() if name not in self.cameras]
        self.cameras.update({camera.name: self._made(camera) for camera in fresh})
        self.cameras = {name: self.cameras[name] for name in wanted}
        self._serve(plan, again=list(old) != list(wanted))
        for camera in fresh:
            self.cameras[camera.name].start()
        self.plan = plan
        for network in [each for each in self._networks if each not in plan.networks()]:
            self._networks.pop(network).close()

    def _made(self, plan: CameraPlan) -> CameraRun:
        runner = self._networks[plan.network].shared()
        runner.set_thresholds(**plan.thresholds)
        counters = self._counters.setdefault(plan.name, LiveCounters(self._total))
        return CameraRun(plan, runner, sinks=tuple(self._shared.values()), counters=counters)

    def _serve(self, plan: SitePlan, *, again: bool) -> None:
        """The page and the metrics; the page lists the cameras, so it starts anew where there are others."""
        before = self.plan
        web, metrics = self._shared["web"], self._shared["metrics"]
        page_changed = again or (plan.web, plan.web_token) != (before.web, before.web_token)
        if plan.web is None or page_changed:
            self._leave(web)
        if plan.web is not None and web.behind is None:
            web.behind = shared_page(plan.web, self._now, self._total, plan.web_token).__enter__()
            log(f"page: {self.page_url}")
        if plan.metrics != before.metrics or plan.metrics is None:
            self._leave(metrics)
        if plan.metrics is not None and metrics.behind is None:
            from edgecnn.runners.live.site.shared_metrics import SiteMetrics

            metrics.behind = SiteMetrics(plan.metrics, self._now).__enter__()

    def _leave(self, shared: SharedSink) -> None:
        behind, shared.behind = shared.behind, None
        if behind is not None:
            behind.__exit__(None, None, None)

    def _now(self) -> list[CameraRun]:
        return list(self.cameras.values())

    def _wait(self) -> int | None:
        """Until the end; returns the number of the signal that asked for it."""
        while any(camera.alive for camera in self._now()):
            if not self._why_stuck():
                self._notifier.alive()
            try:
                number = self._signals.get(timeout=_WAKE_S)
            except queue.Empty:
                continue
            if number == getattr(signal, "SIGHUP", None):
                self.reload()
            else:
                return number
        return None

    def _status(self) -> str:
        return f"{len(self.cameras)} cameras: {', '.join(self.cameras)}"

    def _why_stuck(self) -> str:
        """Why systemd should restart the program: a network that gives no more results; "" where none is stuck.

        Looked at every few seconds only, because it costs.
        """
        if time.monotonic() < self._next_look_s:
            return self._stuck
        self._next_look_s = time.monotonic() + _LOOK_S
        before, self._stuck = self._stuck, ""
        for name, camera in self.cameras.items():
            if camera.alive and (why := why_stuck(camera.counters, since_s=camera.since_s)):
                self._stuck = f"{name}: {why}"
        if self._stuck and not before:
            log(f"stuck: {self._stuck}; a watchdog restarts the program", level=logging.ERROR)
        return self._stuck

    def _stop(self, cameras: list[CameraRun], forgotten: Collection[str] = ()) -> None:
        for camera in cameras:
            camera.stop(forget=camera.plan.name in forgotten)
        end_s = time.monotonic() + _CLOSE_S
        for camera in cameras:
            camera.join(max(0.0, end_s - time.monotonic()))
            self._ended[camera.plan.name] = camera

    def _stop_all(self) -> None:
        self._stop(self._now())
        for shared in self._shared.values():
            self._leave(shared)
        for runner in self._networks.values():
            runner.close()

    def _summary(self, number: int | None) -> SiteSummary:
        ended = {**self._ended, **self.cameras}
        faults = {}
        for name, camera in ended.items():
            failures = camera.summary.faults if camera.summary else ()
            if camera.failure is not None:
                failures = (*failures, f"{type(camera.failure).__name__}: {camera.failure}")
            if failures:
                faults[name] = "; ".join(failures)
        return SiteSummary(
            cameras={name: camera.summary for name, camera in ended.items()},
            faults=faults,
            reloads=self._reloads,
            signal=number,
        )

    @contextlib.contextmanager
    def _handling_signals(self) -> Iterator[None]:
        before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            names = ("SIGINT", "SIGTERM", "SIGHUP")
            for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
                before[number] = signal.signal(number, self._signalled)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        self._signals.put(number)
