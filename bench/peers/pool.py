"""Python's multiprocessing.Pool."""

import multiprocessing
import os
import sys
import time

from common import (
    WORKERS, check, die_with_parent, echo, fail, median_of, pick, print_line, report, report_idle,
    report_map, report_payload, square, work,
)


def warm(workers=WORKERS):
    pool = multiprocessing.Pool(workers, initializer=die_with_parent)
    pool.map(square, range(1000))
    return pool


def start(method):
    context = multiprocessing.get_context(method)

    def run():
        pool = context.Pool(4)
        check(pool.map(square, range(1, 9)) == [1, 4, 9, 16, 25, 36, 49, 64])
        pool.close()
        pool.join()

    report(time=median_of(pick(20, 3), run))


def straggler(chunk):
    long, calls = 50, 10_000
    inputs = [(index, 2 if index == long else 0) for index in range(calls)]
    with warm() as pool:
        started = time.perf_counter()
        others = 0
        for index in pool.imap_unordered(work, inputs, chunk):
            if index != long:
                others = time.perf_counter() - started
        report(others=others, whole=time.perf_counter() - started)


def failing(calls):
    with warm() as pool:
        started = time.perf_counter()
        ends, failed = pool.imap(fail, range(calls)), 0
        for _ in range(calls):
            try:
                ends.next()
            except ValueError:
                failed += 1
        check(failed == calls)
        report(time=(time.perf_counter() - started) / calls)


def printing(calls):
    """Calls that print a line. Each worker has the lines of its own calls in a buffer, and writes them when that is full."""
    answers = os.dup(1)
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    with warm() as pool:
        started = time.perf_counter()
        pool.map(print_line, range(calls))
        seconds = time.perf_counter() - started
    os.dup2(answers, 1)
    report(time=seconds / calls)


TABLE = None


def look_up(at):
    return TABLE[at]


def look_up_in(table_and_at):
    table, at = table_and_at
    return table[at]


def table(way):
    """Calls that look into the same large value: it comes with each, or by a global that forks inherit."""
    global TABLE
    value, calls = bytes(range(256)) * (8 << 12), pick(200, 20)
    started = time.perf_counter()
    if way == "fork":
        TABLE = value
    context = multiprocessing.get_context("fork")
    with context.Pool(WORKERS, initializer=die_with_parent) as pool:
        if way == "fork":
            found = pool.map(look_up, range(calls))
        else:
            found = pool.map(look_up_in, ((value, at) for at in range(calls)), 1)
        seconds = time.perf_counter() - started
    check(found == [value[at] for at in range(calls)])
    report(time=seconds)


def main():
    measure, *rest = sys.argv[2:]
    if measure == "start":
        return start(*rest)
    if measure == "table":
        return table(*rest)
    if measure == "fail":
        return failing(pick(30_000, 2000))
    if measure == "print":
        return printing(pick(100_000, 2000))
    if measure == "straggler":
        return straggler(int(rest[0]))
    with warm(100 if measure == "many" else WORKERS) as pool:
        if measure in ("map", "many"):
            report_map(pick(1_000_000, 100_000), lambda inputs: pool.map(square, inputs))
        elif measure == "each":
            report_map(pick(30_000, 2000), lambda inputs: pool.map(square, inputs, 1))
        elif measure == "imap":
            report_map(pick(30_000, 2000), lambda inputs: list(pool.imap(square, inputs)))
        elif measure == "call":
            report(time=median_of(pick(3000, 300), lambda: check(pool.apply(square, (7,)) == 49)))
        elif measure == "submits":
            submit = lambda x: pool.apply_async(square, (x,))
            report_map(pick(20_000, 2000), lambda inputs: [one.get() for one in [submit(x) for x in inputs]])
        elif measure == "payload":
            report_payload(lambda inputs: pool.map(echo, inputs, 1))
        elif measure == "idle":
            report_idle([child.pid for child in multiprocessing.active_children()])
        else:
            sys.exit(f"pool.py measures no {measure}")


if __name__ == "__main__":
    main()
