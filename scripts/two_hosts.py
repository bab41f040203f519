"""Two hosts made of namespaces on this machine, with a Ray node on each, for the demonstration and the tests.

``python scripts/two_hosts.py --for 30`` runs ``configs/two_hosts.yml`` across them and prints the report's summary, and
the report as one JSON object in the last line. It needs root.

A host is a network, mount, process-id, time and host-name namespace with its own ``/tmp`` (its state folder is in
there), ``/dev/shm``, monotonic clock and boot id; a pair of virtual Ethernet devices is the cable between the two.
Killing a host's first process kills all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
STATE = "/tmp/state"
REPORT = "/tmp/report.json"
PORT = 6379
RAY_START_S = 90.0
BETA_UP_S = 40_000
HEALTH = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
_BIRTH = """
set -e
mount --make-rprivate /
mkdir -p "$HOLD" && mount --bind "$ROOT" "$HOLD"
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
echo "$BOOT_ID" > /tmp/boot_id && mount --bind /tmp/boot_id /proc/sys/kernel/random/boot_id && rm /tmp/boot_id
mkdir -p "$ROOT" && { mountpoint -q "$ROOT" || mount --bind "$HOLD" "$ROOT"; }
hostname "$NAME"
ip link set lo up
echo born
exec sleep infinity
"""


def lacking() -> str:
    """Why hosts cannot be made here; empty if they can."""
    if os.geteuid() != 0:
        return "needs root"
    missing = [
        tool for tool in ("ip", "nsenter", "unshare", "mount", "hostname", "taskset") if shutil.which(tool) is None
    ]
    if missing:
        return f"needs {', '.join(missing)}"
    return "" if Path("/proc/self/ns/time").exists() else "needs a kernel with time namespaces"


class Host:
    """One host. ``pid`` is its first process, seen from outside. ``up_s``: for how much longer than this machine it has
    been up, by its monotonic clock. ``processors``: of this machine, those that its processes run on; none: all.
    """

    def __init__(
        self, name: str, netns: str, address: str, up_s: int = 0, processors: Collection[int] = frozenset()
    ) -> None:
        self.name, self.netns, self.address, self.processors = name, netns, address, processors
        hold = f"/mnt/{netns}"
        command = ["ip", "netns", "exec", netns]
        command += ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--uts"]
        command += ["--time", "--monotonic", str(up_s), "--boottime", str(up_s)]
        self._outer = subprocess.Popen(
            [*command, "sh", "-c", _BIRTH],
            env={**os.environ, "ROOT": str(ROOT), "HOLD": hold, "NAME": name, "BOOT_ID": str(uuid.uuid4())},
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._outer.stdout is not None
        if self._outer.stdout.readline() != b"born\n":
            self._outer.wait()
            raise RuntimeError(f"the host {name} was not born; see the messages above")
        children = Path(f"/proc/{self._outer.pid}/task/{self._outer.pid}/children").read_text().split()
        self.pid = int(children[0])
        self.hold = Path(hold)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.ray: subprocess.Popen[bytes] | None = None

    def path(self, inside: str) -> Path:
        """A file of the host, as this process sees it."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def command(self, arguments: Sequence[str]) -> list[str]:
        enter = ["nsenter", "--target", str(self.pid), "--mount", "--pid", "--net", "--uts", "--time"]
        on = ["taskset", "--cpu-list", ",".join(map(str, self.processors))] if self.processors else []
        return [*on, *enter, f"--wdns={ROOT}", *arguments]

    def start(self, arguments: Sequence[str], env: dict[str, str], output: str) -> subprocess.Popen[bytes]:
        """Run a command on the host until it ends, or the host does."""
        with self.path(output).open("ab") as file:
            process = subprocess.Popen(
                self.command(arguments),
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, arguments: Sequence[str], env: dict[str, str], timeout: float = 60.0) -> subprocess.CompletedProcess:
        """Run a command on the host and wait for it."""
        return subprocess.run(
            self.command(arguments),
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
            text=True,
        )

    @property
    def is_alive(self) -> bool:
        return self._outer.poll() is None

    def kill(self) -> None:
        """Pull the plug."""
        if self._outer.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            self._outer.wait()
        for process in self.processes:
            process.wait()

    def close(self) -> None:
        self.kill()
        if self._outer.stdout is not None:
            self._outer.stdout.close()
        self.hold.rmdir()


class TwoHosts:
    """``alpha``, where the engine is started and the cluster's head is, and ``beta``; use with ``with``.

    ``for_measuring``: their monotonic clocks read the same, so that times of one and of the other can be compared;
    otherwise beta's is hours ahead. And each has half of this machine's processors, since no host works on another's.
    """

    def __init__(self, *, for_measuring: bool = False) -> None:
        self._beta_up_s = 0 if for_measuring else BETA_UP_S
        self._processors = _halves() if for_measuring else [[], []]
        self.tag = f"eng{os.getpid() % 100_000}"
        self.hosts: list[Host] = []
        self.token = secrets.token_hex(32)

    @property
    def alpha(self) -> Host:
        return self.hosts[0]

    @property
    def beta(self) -> Host:
        return self.hosts[1]

    @property
    def environment(self) -> dict[str, str]:
        kept = {key: os.environ[key] for key in ("PATH", "HOME", "LANG") if key in os.environ}
        return {
            **kept,
            **HEALTH,
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', '')}",
            "PYTHONPATH": str(ROOT),
        }

    def __enter__(self) -> TwoHosts:
        try:
            self._make()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for host in self.hosts:
            host.close()
        for name in self._netns():
            subprocess.run(["ip", "netns", "delete", name], check=False, capture_output=True)

    def start_ray(self) -> None:
        """A node on each host, the head on alpha; returns when both are members."""
        self._start_node(self.alpha, "--head", "--port", str(PORT), "--include-dashboard", "false")
        self.join_beta()

    def join_beta(self) -> None:
        """The second node, for the first time or again; returns when it is a member."""
        self._start_node(self.beta, "--address", self.address, "--labels", "place=beta")

    def revive_beta(self) -> None:
        """Another host in the place of one that was killed: nothing that it had is left."""
        self.beta.close()
        self.hosts[1] = Host(self.beta.name, self.beta.netns, self.beta.address, self._beta_up_s, self.beta.processors)

    def _start_node(self, host: Host, *arguments: str) -> None:
        output = "/tmp/ray.out"
        host.path(output).unlink(missing_ok=True)
        common = ["--num-cpus", "0", "--object-store-memory", "80000000", "--disable-usage-stats", "--block"]
        command = ["ray", "start", *arguments, "--node-ip-address", host.address, *common]
        host.ray = host.start(command, self.environment, output)
        self._until(host, lambda: "Ray runtime started" in host.path(output).read_text(), f"the node of {host.name}")

    @property
    def address(self) -> str:
        return f"{self.alpha.address}:{PORT}"

    def engine(self, *arguments: str) -> subprocess.Popen[bytes]:
        """``engine run`` on alpha."""
        command = ["engine", "run", *arguments, "--address", self.address, "--state", STATE]
        return self.alpha.start([*command, "--report", REPORT, "--no-view"], self.environment, "/tmp/engine.out")

    def report(self) -> dict[str, Any]:
        """What ``engine run`` left."""
        report: dict[str, Any] = json.loads(self.alpha.path(REPORT).read_text())
        return report

    def ask(self, host: Host, *arguments: str, timeout: float = 60.0) -> Any:
        """An ``engine`` command on a host, its answer from JSON; RuntimeError with what it said if it failed."""
        done = host.run(["engine", *arguments, "--json", "--state", STATE], self.environment, timeout)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())
        return json.loads(done.stdout)

    def tell(self, host: Host, *arguments: str) -> None:
        """An ``engine`` command on a host; RuntimeError with what it said if it failed."""
        done = host.run(["engine", *arguments, "--state", STATE], self.environment)
        if done.returncode:
            raise RuntimeError(done.stderr.strip())

    def cut(self) -> None:
        """Pull the cable."""
        self._link("down")

    def heal(self) -> None:
        self._link("up")

    # ------------------------------------------------------------------------------------------------------- inside

    def _netns(self) -> list[str]:
        return [f"{self.tag}a", f"{self.tag}b"]

    def _make(self) -> None:
        first, second = self._netns()
        for name in (first, second):
            _do("ip", "netns", "add", name)
        _do("ip", "link", "add", "cable", "netns", first, "type", "veth", "peer", "name", "cable", "netns", second)
        made = (("alpha", first, 0), ("beta", second, self._beta_up_s))
        for index, (name, netns, up_s) in enumerate(made, start=1):
            address = f"10.77.0.{index}"
            _do("ip", "-n", netns, "address", "add", f"{address}/24", "dev", "cable")
            _do("ip", "-n", netns, "link", "set", "cable", "up")
            _do("ip", "-n", netns, "route", "add", "default", "dev", "cable")
            self.hosts.append(Host(name, netns, address, up_s, self._processors[index - 1]))

    def _link(self, state: str) -> None:
        _do("ip", "-n", self._netns()[1], "link", "set", "cable", state)

    def _until(self, host: Host, condition: Any, what: str) -> None:
        deadline = time.monotonic() + RAY_START_S
        while not condition():
            if time.monotonic() > deadline or (host.ray is not None and host.ray.poll() is not None):
                raise RuntimeError(f"{what} did not come up:\n{host.path('/tmp/ray.out').read_text()}")
            time.sleep(0.2)


def _halves() -> list[list[int]]:
    """This machine's processors in two parts; the same one twice where there is but one."""
    found = sorted(os.sched_getaffinity(0))
    middle = (len(found) + 1) // 2
    return [found[:middle], found[middle:] or found]


def _do(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--for", dest="seconds", type=float, default=30.0)
    parser.add_argument("--config", default="configs/two_hosts.yml")
    arguments = parser.parse_args()
    if lack := lacking():
        print(f"two_hosts: {lack}", file=sys.stderr)
        return 1
    with TwoHosts() as hosts:
        hosts.start_ray()
        code = hosts.engine(arguments.config, "--for", str(arguments.seconds)).wait()
        print(hosts.alpha.path("/tmp/engine.out").read_text())
        if not hosts.alpha.path(REPORT).exists():
            return code or 1
        print(json.dumps(hosts.report()))
    return code


if __name__ == "__main__":
    sys.exit(main())
