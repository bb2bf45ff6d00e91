"""A Ray cluster of several nodes on this machine, in processes of its own.

As a program it keeps Ray's test cluster: a line on stdin `add {…}` starts a node with these arguments, `kill` ends the
youngest node as a power cut would, and the end of stdin ends all. Each is answered by a line of JSON.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOKEN = "a-token-of-our-tests-0123456789abcdef"

ENVIRONMENT = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
"""What every process of a cluster needs, and who gives it work."""


class RayNodes:
    """The cluster as the test that started it sees it."""

    def __init__(self, program: subprocess.Popen[str]) -> None:
        self._program = program
        self.address = str(self._answer())

    def add(self, **node: Any) -> None:
        """Start a node and wait until the cluster has it."""
        self._say(f"add {json.dumps(node)}")

    def kill(self) -> None:
        """Kill all processes of the youngest node."""
        self._say("kill")

    def _say(self, command: str) -> None:
        assert self._program.stdin
        print(command, file=self._program.stdin, flush=True)
        self._answer()

    def _answer(self) -> Any:
        assert self._program.stdout
        for line in self._program.stdout:
            if line.startswith("{"):
                return json.loads(line)["answer"]
        raise AssertionError("the cluster has ended")


def need_ray() -> None:
    """Skip where Ray is not installed; not imported to find out, as it takes its settings from the environment then."""
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install '.[cluster]'")


@contextmanager
def ray_nodes(*cpus: int, authenticated: bool = True) -> Iterator[RayNodes]:
    """Nodes with so many CPUs each, the first of which is the head."""
    need_ray()
    token = ENVIRONMENT if authenticated else {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    root = str(Path(__file__).parents[1])
    path = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.ray_nodes", *map(str, cpus)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=root,
        env={**os.environ, **token, "PYTHONPATH": path},
    )
    with program:
        yield RayNodes(program)


def main() -> None:
    """Keep the cluster until stdin ends."""
    from ray.cluster_utils import Cluster

    # A lost node is noticed after seconds, not after half a minute.
    health = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 4}
    head, *others = map(int, sys.argv[1:])
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": head, "include_dashboard": False, "_system_config": health},
    )
    nodes = [cluster.add_node(num_cpus=cpus) for cpus in others]
    _answer(cluster.address)
    for line in sys.stdin:
        command, _, arguments = line.strip().partition(" ")
        if command == "add":
            nodes.append(cluster.add_node(**json.loads(arguments)))
        else:
            cluster.remove_node(nodes.pop(), allow_graceful=False)
        _answer("done")
    cluster.shutdown()


def _answer(answer: str) -> None:
    print(json.dumps({"answer": answer}), flush=True)


if __name__ == "__main__":
    main()
