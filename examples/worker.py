#!/usr/bin/env python3
"""A worker in Python: tasks of another language for a coordinator. It needs nothing but Python itself.

    coordinator map square --worker examples/worker.py ::: 1 2 3
    coordinator tasks --worker examples/worker.py

In Rust: `Pool::builder().worker("examples/worker.py")`, and a task of the same name and types, which is not run.

It is a plain worker, as the documentation of the crate `protocol` calls it: it shares no memory with its coordinator, and
gets one call at a time by its socket. To serve tasks of your own, copy this file and change the part below the line.
"""

import json
import os
import socket
import stat
import struct
import sys
import time
import traceback

VERSION = 9  # of the protocol
MOST_HEADER, MOST_PAYLOAD = 64 << 20, 1 << 30
TASKS = {}


class Failed(Exception):
    """A call that did not succeed, as a task says by an Err in Rust. Any other exception is a panic."""


class Undecodable(Exception):
    """An input, or an output, that is none of the task's."""


# ---- Values in postcard ----------------------------------------------------------------------------


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, count):
        if count > len(self.data) - self.at:
            raise Undecodable("the value ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self):
        number = shift = 0
        while True:
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number
            if shift > 63:
                raise Undecodable("a number of more than 64 bits")

    def signed(self):
        number = self.varint()
        return number >> 1 if number % 2 == 0 else -(number >> 1) - 1

    def bytes(self):
        return self.take(self.varint())

    def text(self):
        return str(self.bytes(), "utf-8")


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def with_length(data):
    return varint(len(data)) + data


def text(value):
    return with_length(value.encode())


def integer(value, low, high):
    # True is an int in Python, and no number elsewhere.
    if type(value) is not int or not low <= value <= high:
        raise Undecodable(f"{value!r} is no integer from {low} to {high}")
    return value


class Type:
    """One of Rust's types: how its values are written, read, and checked when they come as JSON."""

    def __init__(self, write, read, check=lambda value: value):
        self.write, self.read, self.check = write, read, check


def unsigned(bits):
    check = lambda value: integer(value, 0, 2**bits - 1)
    return Type(lambda value: varint(check(value)), lambda reader: check(reader.varint()), check)


def signed(bits):
    check = lambda value: integer(value, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    zigzag = lambda value: varint(value << 1 if value >= 0 else -value * 2 - 1)
    return Type(lambda value: zigzag(check(value)), lambda reader: check(reader.signed()), check)


def instance(kinds, write, read):
    def check(value):
        if not isinstance(value, kinds):
            raise Undecodable(f"{value!r} is no {kinds}")
        return value

    return Type(lambda value: write(check(value)), read, check)


# In the place of a sequence's length: integers that are packed, with this many bytes each, and signed or not.
LAST_MARK = 2**64 - 1
PACKED = [(size, has_sign) for size in (2, 4, 8, 16) for has_sign in (False, True)]


def sequence(item):
    def check(value):
        if not isinstance(value, (list, tuple)):
            raise Undecodable(f"{value!r} is no list")
        return [item.check(one) for one in value]

    def write(value):
        return varint(len(value)) + b"".join(map(item.write, value))

    def read(reader):
        count = reader.varint()
        if count <= LAST_MARK - len(PACKED):
            return [item.read(reader) for _ in range(count)]
        size, has_sign = PACKED[LAST_MARK - count]
        numbers = (reader.take(size) for _ in range(reader.varint()))
        return [item.check(int.from_bytes(number, "little", signed=has_sign)) for number in numbers]

    return Type(write, read, check)


BYTE = Type(lambda value: bytes([integer(value, 0, 255)]), lambda reader: reader.take(1)[0])
BYTES = Type(lambda value: with_length(bytes(value)), Reader.bytes, bytes)
TYPES = {
    "()": Type(lambda value: b"", lambda reader: None),
    "bool": instance(bool, lambda value: bytes([value]), lambda reader: reader.take(1) == b"\x01"),
    "f64": instance((int, float), lambda value: struct.pack("<d", value), lambda reader: struct.unpack("<d", reader.take(8))[0]),
    "String": instance(str, text, Reader.text),
    "u8": BYTE,
    "Vec<u8>": BYTES,
    "ByteBuf": BYTES,
    **{f"u{bits}": unsigned(bits) for bits in (16, 32, 64)},
    **{f"i{bits}": signed(bits) for bits in (16, 32, 64)},
}


def type_of(name):
    if name not in TYPES and name.startswith("Vec<"):
        TYPES[name] = sequence(type_of(name[4:-1]))
    return TYPES[name]


# ---- Tasks -----------------------------------------------------------------------------------------


def task(signature):
    """Makes a task of a function: its signature is the one that it would have in Rust."""

    def register(function):
        parameters, _, output = signature.partition(" -> ")
        name, _, parameters = parameters.removeprefix("fn ").rstrip(")").partition("(")
        output = returned = (output or "()").replace(" ", "")
        if output.startswith("Result<"):
            output = output[len("Result<") :].rpartition(",")[0]
        inputs = [one.partition(":")[2].replace(" ", "") for one in parameters.split(",") if one]
        TASKS[name] = {
            "function": function,
            "signature": signature,
            "doc": (function.__doc__ or "").partition("\n")[0],
            "types": f"({','.join(inputs)})->{returned}",
            "inputs": [type_of(one) for one in inputs],
            "input_names": inputs,
            "output": type_of(output),
        }
        return function

    return register


def from_text(task, words):
    """An input as a person types it: JSON, or else a plain string."""
    words = words.decode()
    try:
        value = json.loads(words)
        values = value if len(task["inputs"]) != 1 else [value]
        if len(values) != len(task["inputs"]):
            raise Undecodable(f"{len(task['inputs'])} values are wanted, as a JSON list")
        return [kind.check(value) for kind, value in zip(task["inputs"], values)]
    except (ValueError, TypeError, Undecodable) as error:
        if task["input_names"] == ["String"]:
            return [words]
        raise Undecodable(f"{words!r} is no input of it: {error}") from None


def from_postcard(task, data):
    reader = Reader(data)
    values = [kind.read(reader) for kind in task["inputs"]]
    if reader.at != len(data):
        raise Undecodable(f"{len(data) - reader.at} bytes too many")
    return values


POSTCARD, TEXT, CHECK = range(3)
VALUE, FAILED, PANICKED, UNDECODABLE = range(4)


def run(batch, data):
    """Runs a call: its verdict, and its output."""
    try:
        task = TASKS.get(batch["task"])
        if task is None:
            raise Undecodable(f"this worker has no task `{batch['task']}`")
        types = batch["types"]
        if types is not None and types.replace(" ", "") != task["types"]:
            raise Undecodable(f"the coordinator knows it as {types}, this worker as {task['types']}")
        encoding = batch["encoding"]
        values = (from_postcard if encoding == POSTCARD else from_text)(task, data)
        if encoding == CHECK:
            return varint(VALUE), b""
        value = task["function"](*values)
        output = task["output"].write(value)
        if encoding == TEXT:
            value = list(value) if isinstance(value, bytes) else value
            output = b"" if value is None else json.dumps(value, separators=(",", ":")).encode()
        return varint(VALUE), output
    except Failed as error:
        return varint(FAILED) + text(str(error)), b""
    except Undecodable as error:
        return varint(UNDECODABLE) + text(str(error)), b""
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{last.filename}:{last.lineno}"
        backtrace = "".join(traceback.format_exception(error)) if "RUST_BACKTRACE" in os.environ else ""
        return varint(PANICKED) + text(f"{type(error).__name__}: {error}") + text(place) + text(backtrace), b""


# ---- The conversation ------------------------------------------------------------------------------


class Link:
    def __init__(self, place):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(place)
        self.file = self.socket.makefile("rb")

    def send(self, header, payload=b""):
        self.socket.sendall(struct.pack("<II", len(header), len(payload)) + header)
        self.socket.sendall(payload)

    def receive(self):
        """The next message and its payload; none if the coordinator is gone."""
        lengths = self.file.read(8)
        if len(lengths) < 8:
            sys.exit(0)
        header, payload = struct.unpack("<II", lengths)
        if header > MOST_HEADER or payload > MOST_PAYLOAD:
            sys.exit("a frame that is too long")
        parts = self.file.read(header), self.file.read(payload)
        if len(parts[1]) < payload:
            sys.exit(0)
        return Reader(parts[0]), parts[1]


def printed(descriptor):
    """How long the file is that a stream is written to."""
    status = os.fstat(descriptor)
    return varint(status.st_size if stat.S_ISREG(status.st_mode) else 0)


def answer(link, header, payload):
    batch = {
        "serial": header.varint(),
        "task": header.text(),
        "types": header.text() if header.take(1) == b"\x01" else None,
        "encoding": header.varint(),
        "first": header.varint(),
        "attempt": header.varint(),
    }
    # One call, whose input is the payload: how long it is would be said here.
    began = time.monotonic_ns()
    verdict, output = run(batch, payload)
    took = time.monotonic_ns() - began
    sys.stdout.flush()
    sys.stderr.flush()
    call = 1  # a Reply::Call
    first = 0  # of its batch
    numbers = varint(call) + varint(batch["serial"]) + varint(first) + varint(took)
    link.send(numbers + printed(1) + printed(2) + verdict, output)


def main():
    if len(sys.argv) != 3 or sys.argv[1] != "--connect":
        sys.exit("a coordinator starts it: coordinator map TASK --worker " + sys.argv[0])
    link = Link(sys.argv[2])
    # Who has the token may join the coordinator. What the tasks start is not to.
    token = os.environ.pop("COORDINATOR_TOKEN", "")
    tasks = b"".join(text(name) + text(task["signature"]) + text(task["doc"]) for name, task in TASKS.items())
    build = f"{os.path.abspath(__file__)} of {os.stat(__file__).st_mtime_ns}"
    shares = b"\x00"
    hello = text(token) + varint(os.getpid()) + varint(len(TASKS)) + tasks + text(build) + shares
    link.send(b"COOR" + struct.pack("<H", VERSION) + hello)
    while True:
        header, payload = link.receive()
        message = header.varint()
        if message == 0:  # Welcome
            link.send(b"")  # Ready
        elif message == 1:  # Refused
            sys.exit("the coordinator refused it: " + header.text())
        elif message == 2:  # Batch
            answer(link, header, payload)
        elif message == 3:  # Exit
            sys.exit(header.signed())


# ====================================================================================================
# The tasks.


@task("fn square(x: i64) -> i64")
def square(x):
    """Squares a number."""
    return x * x


@task("fn shout(words: String) -> String")
def shout(words):
    """Says it louder."""
    print("shouting", words)
    return words.upper() + "!"


@task("fn root(x: f64) -> Result<f64, String>")
def root(x):
    """The square root of a number that has one."""
    if x < 0:
        raise Failed(f"{x} has no root")
    return x**0.5


@task("fn join(words: Vec<String>, between: String) -> String")
def join(words, between):
    """Puts words together."""
    return between.join(words)


@task("fn reverse(data: ByteBuf) -> ByteBuf")
def reverse(data):
    """Turns bytes around."""
    return data[::-1]


@task("fn total(numbers: Vec<i64>) -> i64")
def total(numbers):
    """Adds numbers up."""
    return sum(numbers)


@task("fn divide(a: i64, b: i64) -> i64")
def divide(a, b):
    """Divides, and raises what Python raises."""
    return a // b


@task("fn leave(code: u32)")
def leave(code):
    """Ends its process."""
    os._exit(code)


@task("fn wait(seconds: f64)")
def wait(seconds):
    """Takes its time."""
    time.sleep(seconds)


if __name__ == "__main__":
    main()
