"""A Ray cluster in a process of its own, with the application over it; run as a program by `cluster`.

It reads lines of JSON: arguments of `build`, which it deploys. It writes "ready" after each of them.
"""

import contextlib
import json
import os
import subprocess
import sys
import time

import psutil

_REPLICA = "ray::ServeReplica:rapid:Engine"


class Cluster:
    """The running program, seen from a test."""

    def __init__(self, process, port):
        self._process, self.address = process, f"http://127.0.0.1:{port}"

    def deploy(self, **arguments):
        """Deploy the application with arguments, in place of the one before."""
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == "ready\n"

    def replicas(self):
        """Return the processes of the engines."""
        found = []
        for process in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error, IndexError):
                if process.cmdline()[0].startswith(_REPLICA):
                    found.append(process)
        return found


@contextlib.contextmanager
def cluster(port, log):
    """Start a cluster whose proxy listens at a port of loopback; its messages go to a file."""
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS": "0"}
    with open(log, "w") as messages:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.toys.ray_cluster", str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True,
            env=environment,
        )
        children = []
        try:
            assert process.stdout.readline() == "ready\n", log.read_text()[-2000:]
            yield Cluster(process, port)
        finally:
            with contextlib.suppress(psutil.Error):
                children = psutil.Process(process.pid).children(recursive=True)
            process.stdin.close()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for child in psutil.wait_procs(children, timeout=10)[1]:
                child.kill()
            process.stdout.close()


def main():
    """Run the cluster until the standard input ends."""
    import logging

    import ray
    from ray import serve

    from rapid_integrations.server.ray_app import build

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what the replicas print
    ray.init(num_cpus=2, include_dashboard=False, logging_level=logging.WARNING, object_store_memory=100 * 2**20)
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        serve.run(build(json.loads(line)), name="rapid", route_prefix="/")
        print("ready", file=answers, flush=True)
    serve.shutdown()
    ray.shutdown()
    time.sleep(0.1)


if __name__ == "__main__":
    main()
