"""Run a command as a process of its own; print its seconds, CPU seconds, peak memory and exit status as JSON.

`python -IS launch.py LIMIT COMMAND ...`. A small process of its own does it, since what the kernel
counts as a child's peak memory begins with that of its parent.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time


def main() -> None:
    limit, command = float(sys.argv[1]), sys.argv[2:]
    start = time.perf_counter()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        status: int | None = child.wait(limit)
    except subprocess.TimeoutExpired:
        status = None
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    measured = {
        "wall": time.perf_counter() - start,
        "cpu": used.ru_utime + used.ru_stime,
        "mb": used.ru_maxrss / 1024,
        "status": status,
    }
    print(json.dumps(measured), file=sys.stderr)


if __name__ == "__main__":
    main()
