"""A crew on several machines: one worker for each GPU of a Ray cluster."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

from ..errors import BadRequest, Busy, Internal, NotAllowed, NotFound, StylusError
from .node import TRIES, MakeRenderer, Node, Worker, clear, last_line, make_renderer, this_node
from .packs import Done, Pack, Place, failures

Inputs = Literal["shared", "store"]
"""How files come to the nodes: every node sees them under the same paths, or they are sent."""

_HOW = (
    "Ray's token authentication (on every machine: RAY_AUTH_MODE=token ray start …, and one token in ~/.ray/auth_token)"
)

_LOOK_AGAIN = 10.0
"""Seconds between two looks for nodes that have joined."""

_TOGETHER = 15.0
"""Seconds that the first worker waits for the others."""


@dataclass(frozen=True)
class _Hired:
    """A worker: Ray's handle of it and the node that it is bound to."""

    actor: Any
    node: str


@dataclass(frozen=True)
class _InHand:
    """A pack that a worker has; `inputs` keeps what it was sent in the object store."""

    answer: Any
    worker: _Hired
    inputs: list[Any]


class Cluster:
    """Workers on every node of the Ray cluster at an address (`HOST:PORT`, or `auto` for the one on this machine).

    One for each GPU; for each CPU where the cluster has no GPU, with one thread. A worker that dies is started again
    by Ray and tries its pack again, `TRIES` times in all. A worker belongs to its node: when the node is lost, so is
    the worker, and another one gets its pack. `patience` is how many seconds a first worker may take to start.

    Entering raises `BadRequest` without Ray or for unlike versions, `NotAllowed` without token authentication,
    `NotFound` where no cluster answers, `Busy` where no worker starts in time.
    """

    def __init__(
        self,
        address: str,
        inputs: Inputs = "shared",
        *,
        make: MakeRenderer = make_renderer,
        cache: Path | None = None,
        patience: float = 120.0,
    ) -> None:
        self._address = address
        self._shared = inputs == "shared"
        self._make = make
        self._cache = cache
        self._patience = patience
        self._run = uuid.uuid4().hex
        self._names = itertools.count()
        self._kind = "CPU"
        self._nodes: set[str] = set()
        self._starting: dict[Any, _Hired] = {}
        self._workers: list[_Hired] = []
        self._in_hand: dict[int, _InHand] = {}
        self._styles: dict[str, Any] = {}
        self._looked = 0.0
        self._trouble = "no node has room for one"

    def __enter__(self) -> Self:
        self._ray = _connect(self._address)
        try:
            self._check_nodes()
            self._look_for_nodes()
            self._await_workers()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._leave()

    @property
    def size(self) -> int:
        """How many workers there are now."""
        return len(self._workers)

    def work(self, packs: Iterable[Pack]) -> Iterator[Done]:
        """Every pack once with its outcomes, as they finish; raises `Internal` when no worker is left."""
        from ray.exceptions import RayError
        from ray.util.actor_pool import ActorPool

        self._in_hand = {}
        open_ = {pack.number: pack for pack in packs}
        deaths: Counter[int] = Counter()
        while open_:
            # Packs that workers have already come first, and the pool takes its workers from the end.
            in_hand = [self._in_hand[number].worker for number in self._in_hand]
            idle = [worker for worker in self._workers if worker not in in_hand]
            pool = ActorPool([worker.actor for worker in (*idle, *reversed(in_hand))])
            rest = [pack for number, pack in open_.items() if number not in self._in_hand]
            try:
                for number, outcomes, seconds in pool.map_unordered(
                    self._hand_out, [*(open_[number] for number in self._in_hand), *rest]
                ):
                    del self._in_hand[number]
                    yield Done(open_.pop(number), outcomes, seconds)
                    if open_:
                        for worker in self._newcomers():
                            pool.push(worker.actor)
            except RayError as error:
                for number in self._lost(error):
                    deaths[number] += 1
                    if deaths[number] == TRIES:
                        pack = open_.pop(number)
                        message = f"its worker was lost {TRIES} times while rendering it: {last_line(error)}"
                        yield Done(pack, failures(pack, Internal.code, message), 0.0)
            if open_ and not self._workers:
                self._hire_again(len(open_))

    def _hand_out(self, actor: Any, pack: Pack) -> Any:
        """The answer that a worker will give. Files are read only now: the memory holds what is being worked on."""
        if pack.number in self._in_hand:
            return self._in_hand[pack.number].answer
        inputs: list[Any] = []
        if not self._shared:
            inputs = [*map(self._put, pack.contents), *(self._put_style(path) for path, _ in pack.styles)]
        answer = actor.render.remote(pack, self._shared, *inputs)
        worker = next(worker for worker in self._workers if worker.actor == actor)
        self._in_hand[pack.number] = _InHand(answer, worker, inputs)
        return answer

    def _put(self, path: str) -> Any:
        try:
            return self._ray.put(Path(path).read_bytes())
        except OSError:
            return None

    def _put_style(self, path: str) -> Any:
        if self._styles.get(path) is None:
            self._styles[path] = self._put(path)
        return self._styles[path]

    def _lost(self, error: Exception) -> list[int]:
        """Numbers of the packs whose workers are gone or have failed; those workers are let go."""
        from ray.exceptions import ActorDiedError, ActorUnschedulableError, RayError

        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        gone = [worker for worker in self._workers if worker.node not in alive]
        lost = []
        for number, held in self._in_hand.items():
            failed = held.worker in gone
            if self._ray.wait([held.answer], timeout=0)[0]:
                try:
                    self._ray.get(held.answer)
                    failed = False
                except (ActorDiedError, ActorUnschedulableError):
                    failed = True
                    gone.append(held.worker)
                except RayError:
                    failed = True
            if failed:
                lost.append(number)
        if not lost and not gone:
            raise Internal(f"the cluster fails: {last_line(error)}") from error
        for number in lost:
            del self._in_hand[number]
        self._workers = [worker for worker in self._workers if worker not in gone]
        self._nodes &= alive
        return lost

    def _hire_again(self, packs: int) -> None:
        self._look_for_nodes()
        try:
            self._await_workers()
        except StylusError:
            raise Internal(
                f"no worker of the cluster is left, and {packs} packs are not rendered: start its nodes again, "
                "and then the batch, which goes on where it was"
            ) from None

    def _check_nodes(self) -> None:
        """Ask every node that shall work whether it renders as this machine does."""
        from ray.exceptions import GetTimeoutError, RayError

        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        self._kind = "GPU" if any(node["Resources"].get("GPU", 0) >= 1 for node in nodes) else "CPU"
        names = {
            node["NodeID"]: f"{node['NodeManagerHostname']} ({node['NodeManagerAddress']})"
            for node in nodes
            if node["Resources"].get(self._kind, 0) >= 1
        }
        if not names:
            raise BadRequest(f"the cluster at {self._address} has neither a GPU nor a CPU to work with")
        ours = this_node()
        asked = [(name, self._on_node(this_node, node)) for node, name in names.items()]
        for name, answer in asked:
            try:
                theirs: Node = self._ray.get(answer, timeout=self._patience)
            except GetTimeoutError:
                raise Busy(f"node {name} does not answer within {self._patience:.0f} s") from None
            except RayError as error:
                raise BadRequest(
                    f"node {name} cannot run stylus-audio {ours.versions['stylus-audio']}: it must be installed there, "
                    f"in the Python that Ray was started with ({last_line(error)})"
                ) from error
            if not theirs.authenticated:
                raise NotAllowed(f"node {name} takes work from anybody: --cluster needs {_HOW}")
            if unlike := _differences(ours, theirs):
                raise BadRequest(f"node {name} would render differently: {unlike}; install the same on every machine")

    def _look_for_nodes(self) -> None:
        """Start workers on the nodes that have none."""
        self._looked = time.monotonic()
        for node in self._ray.nodes():
            if node["Alive"] and node["NodeID"] not in self._nodes:
                self._nodes.add(node["NodeID"])
                for _ in range(int(node["Resources"].get(self._kind, 0))):
                    self._hire(node["NodeID"])

    def _hire(self, node: str) -> None:
        gpu = self._kind == "GPU"
        place = Place("cuda" if gpu else "cpu", 1, self._cache)
        # Ray would start a worker of a lost node again only where a GPU is free, and keep its pack waiting until then.
        # Bound to its node it ends with it. Its own deaths it counts itself (see `Worker`), hence no limit here.
        options = {"num_cpus": 0 if gpu else 1, "num_gpus": 1 if gpu else 0, "max_restarts": -1, "max_task_retries": -1}
        actor = (
            self._ray.remote(Worker)
            .options(**options, scheduling_strategy=_bound_to(node))
            .remote(self._make, place, self._run, str(next(self._names)))
        )
        self._starting[actor.ready.remote()] = _Hired(actor, node)

    def _await_workers(self) -> None:
        """Wait for a first worker and, a while, for the others."""
        deadline = time.monotonic() + self._patience
        while not self._workers and self._starting and time.monotonic() < deadline:
            self._ray.wait(list(self._starting), timeout=max(0.0, deadline - time.monotonic()))
            self._take_on()
        if not self._workers and not self._starting:
            raise Internal(f"no worker of the cluster starts: {self._trouble}")
        if not self._workers:
            raise Busy(f"no worker of the cluster has started in {self._patience:.0f} s: its {self._kind}s are taken")
        if self._starting:
            self._ray.wait(list(self._starting), num_returns=len(self._starting), timeout=_TOGETHER)
            self._take_on()

    def _newcomers(self) -> list[_Hired]:
        if time.monotonic() - self._looked > _LOOK_AGAIN:
            self._look_for_nodes()
        return self._take_on() if self._starting else []

    def _take_on(self) -> list[_Hired]:
        """Those of the starting workers that have started; not one whose node would render differently."""
        from ray.exceptions import RayError

        started: list[_Hired] = []
        for answer in self._ray.wait(list(self._starting), num_returns=len(self._starting), timeout=0)[0]:
            worker = self._starting.pop(answer)
            try:
                node: Node = self._ray.get(answer)
            except RayError as error:
                self._trouble = last_line(error)
                continue
            if node.authenticated and not _differences(this_node(), node):
                started.append(worker)
            else:
                self._ray.kill(worker.actor)
        self._workers += started
        return started

    def _on_node(self, function: Any, node: str, *arguments: Any) -> Any:
        options = {"num_cpus": 0, "max_retries": 1, "scheduling_strategy": _bound_to(node)}
        return self._ray.remote(function).options(**options).remote(*arguments)

    def _leave(self) -> None:
        """End all workers, have their files removed, and let go of the cluster."""
        try:
            for worker in (*self._workers, *self._starting.values()):
                self._ray.kill(worker.actor)
            alive = [node["NodeID"] for node in self._ray.nodes() if node["Alive"] and node["NodeID"] in self._nodes]
            cleared = [self._on_node(clear, node, self._run) for node in alive]
            if cleared:
                self._ray.wait(cleared, num_returns=len(cleared), timeout=10)
        finally:
            self._ray.shutdown()


def _bound_to(node: str) -> Any:
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    return NodeAffinitySchedulingStrategy(node, soft=False)


def _differences(ours: Node, theirs: Node) -> str:
    return ", ".join(
        f"{name} {theirs.versions.get(name, 'is missing')} there, {wanted} here"
        for name, wanted in ours.versions.items()
        if theirs.versions.get(name) != wanted
    )


def _connect(address: str) -> Any:
    """Join the cluster as the one who gives out work; returns the module `ray`."""
    host, _, port = address.rpartition(":")
    if address != "auto" and (not host or "/" in host or not port.isdecimal()):
        raise BadRequest(f"--cluster takes HOST:PORT or auto, not {address!r}")
    mode = os.environ.setdefault("RAY_AUTH_MODE", "token")
    if mode.lower() != "token":
        raise NotAllowed(f"RAY_AUTH_MODE={mode} turns off what --cluster needs: {_HOW}")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # How often it tries, about once a second: we know already that somebody answers.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "3")
    try:
        import ray
    except ModuleNotFoundError:
        raise BadRequest("--cluster needs Ray: pip install '.[cluster]'") from None
    if address != "auto":
        _call(address, host, int(port))
    # What Ray's own debugger does too. Without it news of the cluster is printed to stdout, between our results.
    ray._private.worker._worker_logs_enabled = False
    try:
        with _undisturbed():
            ray.init(address=address, log_to_driver=False, configure_logging=False)
    except Exception as error:
        ray.shutdown()
        raise _refusal(address, error) from error
    return ray


def _call(address: str, host: str, port: int) -> None:
    """Whether anybody is there; Ray itself would go on trying for minutes."""
    try:
        socket.create_connection((host, port), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise NotFound(f"no Ray cluster answers at {address}: {error}") from error


def _refusal(address: str, error: Exception) -> StylusError:
    from ray.exceptions import AuthenticationError

    said = "\n".join(str(one) for one in (error, error.__cause__) if one)
    if "InvalidAuthToken" in said:
        return NotAllowed(
            f"the cluster at {address} refuses the token of this machine: RAY_AUTH_TOKEN, the file that "
            "RAY_AUTH_TOKEN_PATH names, or ~/.ray/auth_token must hold the cluster's"
        )
    if isinstance(error, AuthenticationError) or "RAY_AUTH_TOKEN_PATH" in said:
        return NotAllowed(f"there is no token on this machine: --cluster needs {_HOW}")
    if "Version mismatch" in said:
        return BadRequest(f"the cluster at {address} runs another Ray or Python: {' '.join(said.split())}")
    return NotFound(f"the cluster at {address} cannot be joined: {last_line(error)}")


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Ray's C++ part says on stderr what comes as an exception too, and `ray.init` takes SIGTERM for itself."""
    here = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if here else None
    stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
        if handler is not None:
            signal.signal(signal.SIGTERM, handler)
