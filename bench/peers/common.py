"""What the scripts here have in common: the tasks, and how a result gets out.

Each script is told `full` or `quick`, a measure, and perhaps more; it times itself, so that the
interpreter's start does not count, and prints a line of JSON.
"""

import json
import os
import sys
import time

WORKERS = 2
MIB = 1 << 20
QUICK = sys.argv[1] == "quick" if len(sys.argv) > 1 else True


def pick(full, quick):
    """How many: in full, or to see that it works."""
    return quick if QUICK else full


def square(x):
    return x * x


def fail(x):
    raise ValueError(f"{x} is not to my liking")


def print_line(x):
    print(f"the square of {x} is {x * x}")


def echo(payload):
    return payload


def work(call):
    """Keeps a processor busy for 10 microseconds, or sleeps if it is told for how long."""
    index, sleep = call
    if sleep:
        time.sleep(sleep)
    end = time.perf_counter() + 10e-6
    while time.perf_counter() < end:
        pass
    return index


def die_with_parent():
    """A worker's initializer: it does not outlive whoever started it, however that ends."""
    import ctypes

    pr_set_pdeathsig, sigkill = 1, 9
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, sigkill)


def report(**values):
    print(json.dumps({"values": values}), flush=True)


def missing(what):
    print(json.dumps({"missing": what}), flush=True)
    sys.exit(0)


def check(right):
    if not right:
        sys.exit("the results are wrong")


def median_of(runs, run):
    """The median time of so many runs. The first does not count."""
    run()
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    times.sort()
    middle = len(times) // 2
    return times[middle] if len(times) % 2 else (times[middle - 1] + times[middle]) / 2


def report_map(calls, run):
    """Times a map of squares, which `run` makes of its inputs."""
    started = time.perf_counter()
    squares = run(range(calls))
    seconds = time.perf_counter() - started
    check(len(squares) == calls and squares[-1] == (calls - 1) ** 2)
    report(time=seconds / calls)


def report_payload(run):
    """Times maps of large payloads, which `run` makes of its inputs; as ours, of outputs before."""
    maps, calls = pick((10, 50), (2, 10))
    payloads = run([bytes([7]) * MIB] * calls)
    started = time.perf_counter()
    for _ in range(maps):
        payloads = run(payloads)
    seconds = time.perf_counter() - started
    check(len(payloads) == calls and all(payload == bytes([7]) * MIB for payload in payloads))
    report(time=seconds / (maps * calls))


def activity(pids):
    """Time on a processor and voluntary switches of all threads but this process's first."""
    cpu = switches = 0
    for pid in [os.getpid(), *pids]:
        for thread in os.listdir(f"/proc/{pid}/task"):
            if thread == str(os.getpid()):
                continue
            path = f"/proc/{pid}/task/{thread}"
            with open(f"{path}/schedstat") as file:
                cpu += int(file.read().split()[0]) / 1e9
            with open(f"{path}/status") as file:
                lines = [line for line in file if line.startswith("voluntary_ctxt_switches:")]
                switches += int(lines[0].split()[1])
    return cpu, switches


def report_idle(pids):
    time.sleep(0.5)
    cpu, switches = activity(pids)
    time.sleep(pick(10, 2))
    cpu_then, switches_then = activity(pids)
    report(cpu=cpu_then - cpu, switches=switches_then - switches)
