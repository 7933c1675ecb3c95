"""concurrent.futures.ProcessPoolExecutor, and loky's, which has the same face."""

import sys

from common import (
    WORKERS, check, die_with_parent, echo, median_of, missing, pick, report, report_idle,
    report_map, report_payload, square,
)


def executor_of(kind):
    if kind == "futures":
        from concurrent.futures import ProcessPoolExecutor
    else:
        try:
            from loky import ProcessPoolExecutor
        except ImportError:
            missing("loky")
    return ProcessPoolExecutor


def start(executor):
    def run():
        with executor(4) as pool:
            squares = list(pool.map(square, range(1, 9)))
        check(squares == [1, 4, 9, 16, 25, 36, 49, 64])

    report(time=median_of(pick(10, 2), run))


def main():
    measure, kind = sys.argv[2:]
    executor = executor_of(kind)
    if measure == "start":
        return start(executor)
    with executor(WORKERS, initializer=die_with_parent) as pool:
        list(pool.map(square, range(100)))
        if measure == "map":
            # It has no chunk size of its own but 1: the one that Pool.map would have chosen.
            calls = pick(1_000_000, 100_000)
            chunk = calls // (4 * WORKERS)
            report_map(calls, lambda inputs: list(pool.map(square, inputs, chunksize=chunk)))
        elif measure == "each":
            report_map(pick(5000, 500), lambda inputs: list(pool.map(square, inputs, chunksize=1)))
        elif measure == "call":
            call = lambda: check(pool.submit(square, 7).result() == 49)
            report(time=median_of(pick(2000, 200), call))
        elif measure == "submits":
            submit = lambda x: pool.submit(square, x)
            report_map(pick(5000, 500), lambda inputs: [one.result() for one in [submit(x) for x in inputs]])
        elif measure == "payload":
            report_payload(lambda inputs: list(pool.map(echo, inputs, chunksize=1)))
        elif measure == "idle":
            report_idle(list(pool._processes))
        else:
            sys.exit(f"executor.py measures no {measure}")


if __name__ == "__main__":
    main()
