"""The process that sends the load: a job on standard input, what was measured on standard output.

Started by loadtest.closed_loop, so that nothing shares its interpreter's lock; not a program for people. It runs on the
server's own cores, so it does as little as it can for a request: the bytes are made before, connections stay open, and
of an answer only what the check needs is parsed.
"""

from __future__ import annotations

import json
import pkgutil
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import BinaryIO

import grpc
from geventhttpclient.response import HTTPResponse

Check = Callable[[bytes], None]

GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"
GRPC_OPTIONS = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
TIMEOUT_S = 60.0  # of one request: it is then an error, rather than a load that never ends
RECEIVE_BYTES = 65536


@dataclass(frozen=True)
class Job:
    """What to send where. With `rate_per_s` the loop is open, without it is closed with `in_flight` requests."""

    authority: str  # host:port
    check: str  # "module:name" of a Check
    sizes: tuple[int, ...]  # bytes of each payload; they follow the job on standard input
    http_head: str | None  # request line and headers without Content-Length; None for gRPC
    in_flight: int
    rate_per_s: float | None
    seconds: float
    warm_up_s: float

    @property
    def is_http(self) -> bool:
        return self.http_head is not None


@dataclass
class Record:
    """What was measured within the window; filled by all threads of the generator."""

    start_s: float
    stop_s: float
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0  # of this whole process, within the window

    def put(self, counted_at_s: float, latency_s: float, error: str | None) -> None:
        """Count a request; outside the window it is warm-up or too late."""
        if self.start_s <= counted_at_s < self.stop_s:
            if error is None:
                self.latencies_ms.append(latency_s * 1e3)
            else:
                self.errors[error] += 1

    def sleep_through(self) -> None:
        """Return at the window's end, with the processor time that passed in it noted."""
        time.sleep(max(0.0, self.start_s - time.perf_counter()))
        before_s = time.process_time()
        time.sleep(max(0.0, self.stop_s - time.perf_counter()))
        self.cpu_s = time.process_time() - before_s


def grpc_closed(job: Job, payloads: Sequence[bytes], check: Check) -> Record:
    """Each answer's callback sends the next request: no thread for a request, hence no switching between them."""
    with grpc.insecure_channel(job.authority, GRPC_OPTIONS) as channel:
        call = channel.unary_unary(GRPC_METHOD, None, None)  # bytes out, bytes in
        check(call(payloads[0], timeout=TIMEOUT_S))
        record, turn, finished = _record(job), cycle(payloads), threading.Semaphore(0)

        def send() -> None:
            sent_s = time.perf_counter()
            call.future(next(turn), timeout=TIMEOUT_S).add_done_callback(lambda answer: receive(answer, sent_s))

        def receive(answer: grpc.Future, sent_s: float) -> None:
            now_s = time.perf_counter()
            record.put(now_s, now_s - sent_s, _grpc_error(answer, check))
            if now_s < record.stop_s:
                send()
            else:
                finished.release()

        for _ in range(job.in_flight):
            send()
        record.sleep_through()
        for _ in range(job.in_flight):
            finished.acquire()
        return record


def grpc_open(job: Job, payloads: Sequence[bytes], check: Check) -> Record:
    """Requests leave at evenly spaced times whatever the answers do; latency counts from those times."""
    with grpc.insecure_channel(job.authority, GRPC_OPTIONS) as channel:
        call = channel.unary_unary(GRPC_METHOD, None, None)
        check(call(payloads[0], timeout=TIMEOUT_S))
        record, finished = _record(job), threading.Semaphore(0)
        watch = threading.Thread(target=record.sleep_through)
        watch.start()

        def receive(answer: grpc.Future, due_s: float) -> None:
            record.put(due_s, time.perf_counter() - due_s, _grpc_error(answer, check))
            finished.release()

        first_s = record.start_s - job.warm_up_s
        count = int((record.stop_s - first_s) * (job.rate_per_s or 0.0))
        for number, payload in zip(range(count), cycle(payloads), strict=False):
            due_s = first_s + number / (job.rate_per_s or 1.0)
            time.sleep(max(0.0, due_s - time.perf_counter()))
            call.future(payload, timeout=TIMEOUT_S).add_done_callback(
                lambda answer, due_s=due_s: receive(answer, due_s)
            )
        for _ in range(count):
            finished.acquire()
        watch.join()
        return record


def _grpc_error(answer: grpc.Future, check: Check) -> str | None:
    try:
        check(answer.result())
    except grpc.RpcError as error:
        return f"{error.code().name}: {error.details()}"
    except Exception as error:  # whatever the check says is what went wrong with this request
        return f"{type(error).__name__}: {error}"
    return None


def http_closed(job: Job, payloads: Sequence[bytes], check: Check) -> Record:
    """A connection and a thread for each request in flight; head and body leave in one piece."""
    head = f"{job.http_head}Content-Length: "
    requests = [f"{head}{len(payload)}\r\n\r\n".encode() + payload for payload in payloads]
    with Http(job.authority) as connection:
        check(connection.ask(requests[0]))
    record = _record(job)
    threads = [
        threading.Thread(
            target=_http_loop, args=(job.authority, requests[n % len(requests) :] + requests, check, record)
        )
        for n in range(job.in_flight)
    ]
    for thread in threads:
        thread.start()
    record.sleep_through()
    for thread in threads:
        thread.join()
    return record


def _http_loop(authority: str, requests: Sequence[bytes], check: Check, record: Record) -> None:
    turn = cycle(requests)
    while time.perf_counter() < record.stop_s:
        try:
            with Http(authority) as connection:
                while (sent_s := time.perf_counter()) < record.stop_s:
                    check(connection.ask(next(turn)))
                    now_s = time.perf_counter()
                    record.put(now_s, now_s - sent_s, None)
        except Exception as error:  # the request's own; the connection is not to be trusted after it
            record.put(time.perf_counter(), 0.0, f"{type(error).__name__}: {error}")


class Http:
    """One kept-alive connection. The parser is geventhttpclient's (llhttp), the socket a plain blocking one."""

    def __init__(self, authority: str) -> None:
        host, _, port = authority.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Http:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> bytes:
        """The answer's body. Raises OSError for a broken connection or a status other than 200."""
        self._socket.sendall(request)
        answer = HTTPResponse("POST")
        while not answer.message_complete:
            received = self._socket.recv(RECEIVE_BYTES)
            if not received:
                raise ConnectionError("the server closed the connection")
            answer.feed(received)
        body = bytes(answer._body_buffer)
        if answer.status_code != 200:
            raise OSError(f"HTTP status {answer.status_code}: {body[:200].decode(errors='replace')}")
        return body


def _record(job: Job) -> Record:
    start_s = time.perf_counter() + job.warm_up_s
    return Record(start_s, start_s + job.seconds)


def read_job(stream: BinaryIO) -> tuple[Job, list[bytes]]:
    """A line of JSON, then the payloads one after another."""
    job = Job(**json.loads(stream.readline()))
    return job, [stream.read(size) for size in job.sizes]


def run(job: Job, payloads: Sequence[bytes]) -> Record:
    """Raises what the check or the connection raises for the very first request: then nothing is worth measuring."""
    check: Check = pkgutil.resolve_name(job.check)
    if job.is_http:
        return http_closed(job, payloads, check)
    return (grpc_open if job.rate_per_s else grpc_closed)(job, payloads, check)


if __name__ == "__main__":
    sys.setswitchinterval(0.05)  # threads give up the lock when they wait; forcing them to costs switches
    json.dump(vars(run(*read_job(sys.stdin.buffer))), sys.stdout)
