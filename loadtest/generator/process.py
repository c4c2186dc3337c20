"""The process that sends the load: a job on standard input, what was measured on standard output.

Started by closed_loop, so that nothing shares its interpreter's lock; not a program for people. It runs on the
server's own cores, so it does as little as it can for a request: the bytes are made before, connections stay open, and
of an answer only what the check needs is parsed.
"""

from __future__ import annotations

import json
import pkgutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import cycle
from typing import BinaryIO

import grpc

from loadtest.generator.connections import (
    GRPC_OPTIONS,
    TIMEOUT_S,
    Connection,
    GrpcConnection,
    HttpConnection,
    grpc_error,
    key_metadata,
)

Check = Callable[[bytes], None]

GRPC_METHOD = "/inference.GRPCInferenceService/ModelInfer"


@dataclass(frozen=True)
class Job:
    """What to send where. With `rate_per_s` the loop is open, without it is closed with `in_flight` requests."""

    authority: str  # host:port
    check: str  # "module:name" of a Check
    sizes: tuple[int, ...]  # bytes of each payload; they follow the job on standard input
    http_head: str | None  # request line and headers without Content-Length; None for gRPC
    in_flight: int
    rate_per_s: float | None  # gRPC only
    seconds: float
    warm_up_s: float


@dataclass
class Record:
    """What was measured within the window; filled by all threads of the generator."""

    start_s: float
    stop_s: float
    latencies_ms: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)
    cpu_s: float = 0.0  # of this whole process, within the window
    answered: int = 0  # valid answers at any time: what the server's work during the load was for

    def put(self, counted_at_s: float, latency_s: float, error: str | None) -> None:
        """Count a request; outside the window it is warm-up or too late."""
        self.answered += error is None
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


def grpc_open(job: Job, payloads: Sequence[bytes], check: Check) -> Record:
    """Send at evenly spaced times whatever the answers do; latency counts from those times."""
    with grpc.insecure_channel(job.authority, GRPC_OPTIONS) as channel:
        call, metadata = channel.unary_unary(GRPC_METHOD, None, None), key_metadata(job.authority)
        check(call(payloads[0], timeout=TIMEOUT_S, metadata=metadata))
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
            call.future(payload, timeout=TIMEOUT_S, metadata=metadata).add_done_callback(
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
        return grpc_error(error)
    except Exception as error:  # whatever the check says is what went wrong with this request
        return f"{type(error).__name__}: {error}"
    return None


def grpc_closed(job: Job, payloads: list[bytes], check: Check) -> Record:
    """Have each answer's callback send the next request: two thirds of what a thread for each in flight costs."""
    with grpc.insecure_channel(job.authority, GRPC_OPTIONS) as channel:
        call, metadata = channel.unary_unary(GRPC_METHOD, None, None), key_metadata(job.authority)
        check(call(payloads[0], timeout=TIMEOUT_S, metadata=metadata))
        record, finished = _record(job), threading.Semaphore(0)

        def send(turn: Iterator[bytes]) -> None:
            sent_s = time.perf_counter()
            if sent_s < record.stop_s:
                answer = call.future(next(turn), timeout=TIMEOUT_S, metadata=metadata)
                answer.add_done_callback(lambda answer: receive(answer, sent_s, turn))
            else:
                finished.release()

        def receive(answer: grpc.Future, sent_s: float, turn: Iterator[bytes]) -> None:
            now_s = time.perf_counter()
            record.put(now_s, now_s - sent_s, _grpc_error(answer, check))
            send(turn)

        for number in range(job.in_flight):
            send(cycle(payloads[number % len(payloads) :] + payloads[: number % len(payloads)]))
        record.sleep_through()
        for _ in range(job.in_flight):
            finished.acquire()
        return record


def closed(job: Job, payloads: Sequence[bytes], check: Check) -> Record:
    """Open a connection and a thread for each request in flight, as that many clients would have."""
    requests = [_http_request(job.http_head, payload) for payload in payloads] if job.http_head else list(payloads)
    check(_ask_once(job, requests[0]))
    record = _record(job)
    threads = [
        threading.Thread(
            target=_loop, args=(job, requests[n % len(requests) :] + requests[: n % len(requests)], check, record)
        )
        for n in range(job.in_flight)
    ]
    for thread in threads:
        thread.start()
    record.sleep_through()
    for thread in threads:
        thread.join()
    return record


def _loop(job: Job, requests: Sequence[bytes], check: Check, record: Record) -> None:
    turn = cycle(requests)
    while time.perf_counter() < record.stop_s:
        try:
            with closing(_connect(job)) as connection:
                while (sent_s := time.perf_counter()) < record.stop_s:
                    answer = connection.ask(next(turn))
                    now_s = time.perf_counter()
                    check(answer)
                    record.put(now_s, now_s - sent_s, None)
        except Exception as error:  # the request's own; the connection is not to be trusted after it
            record.put(time.perf_counter(), 0.0, f"{type(error).__name__}: {error}")


def _ask_once(job: Job, request: bytes) -> bytes:
    with closing(_connect(job)) as connection:
        return connection.ask(request)


def _connect(job: Job) -> Connection:
    return HttpConnection(job.authority) if job.http_head else GrpcConnection(job.authority, GRPC_METHOD)


def _http_request(head: str, body: bytes) -> bytes:
    """Head and body in one piece, so that they leave together."""
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def _record(job: Job) -> Record:
    start_s = time.perf_counter() + job.warm_up_s
    return Record(start_s, start_s + job.seconds)


def read_job(stream: BinaryIO) -> tuple[Job, list[bytes]]:
    """Read a line of JSON, then the payloads one after another."""
    job = Job(**json.loads(stream.readline()))
    return job, [stream.read(size) for size in job.sizes]


def run(job: Job, payloads: list[bytes]) -> Record:
    """Run the job. Raises what the very first request raises: then nothing is worth measuring."""
    check: Check = pkgutil.resolve_name(job.check)
    if job.rate_per_s:
        return grpc_open(job, payloads, check)
    if job.in_flight > 1 and not job.http_head:
        return grpc_closed(job, payloads, check)
    return closed(job, payloads, check)


if __name__ == "__main__":
    sys.setswitchinterval(0.05)  # threads give up the lock when they wait; forcing them to costs switches
    json.dump(vars(run(*read_job(sys.stdin.buffer))), sys.stdout)
