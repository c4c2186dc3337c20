"""Load on a Triton server that serves AgeGenderNet, made by locust with this project's own clients.

    locust -f loadtest/locustfile.py --headless --users 8 --run-time 30s GrpcTensor

Users are GrpcTensor, GrpcEncoded, HttpTensor and HttpEncoded; all four share the load where none is named. Without
`--rate` the loop is closed: each user has one request in flight. With it the loop is open: each user's requests leave
at that rate whatever the answers do, and latency counts from when a request should have left. `--processes 2`, or
`--master` and `--worker`, divide the users as locust does. docs/loadtest.md says more.
"""

from __future__ import annotations

import logging
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import locust  # before grpc: it makes the standard library cooperative
import locust.env

# isort: split
import gevent
import grpc.experimental.gevent
from gevent.pool import Group
from locust.argument_parser import LocustArgumentParser

grpc.experimental.gevent.init_gevent()  # before any channel

from clients import Circuit, FaceAttributesClient, FaceAttributesError, ModelStatistics, Wire  # noqa: E402
from clients.command_line import ServerConnection  # noqa: E402
from contract.program import UserError  # noqa: E402
from contract.spec import ENSEMBLE_NAME, GRPC_PORT, HTTP_PORT  # noqa: E402
from loadtest.faces import Picture, Pictures, load_pictures  # noqa: E402
from loadtest.users import conditions, shapes  # noqa: E402  (of shapes the module: locust applies any class it can see)
from loadtest.users.measurement import MODELS, Measurement, Request  # noqa: E402
from loadtest.users.recording import Recording, is_worker, record_on_worker  # noqa: E402
from loadtest.users.schedule import ARRIVALS, SHAPES, arrival_times  # noqa: E402

AFTER_AN_ERROR_S = 0.1  # a closed loop's pause: a server that refuses at once would be asked as fast as we can
_UNIX_S = time.time() - time.perf_counter()  # all times are of the one clock that is never set

FILES = {  # as the clients' programs have them
    "headers_file": 'lines "name: value" that go with every request, such as a key',
    "ca_file": "PEM; without it the system's authorities are trusted",
    "certificate_file": "the client's own, PEM, where the server asks for one",
    "key_file": "its private key",
}

pictures = cache(load_pictures)


class FaceAttributesUser(locust.User):
    """Sends one picture after the other; an error of the client, which checks every answer, is a failed request."""

    abstract = True
    protocol: str
    wire: Wire
    wait_time = locust.constant(0)

    def on_start(self) -> None:
        options = self.environment.parsed_options
        self.name = f"{self.protocol} {self.wire}"
        self._client = open_client(type(self), options)
        self._pictures = self._endless(pictures(options.faces))
        self._in_flight = Group()
        self._arrivals: Iterator[float] | None = None
        with suppress(FaceAttributesError):  # connect and compare the contract now; what fails here will fail below
            self._ask(next(self._pictures))
        if options.rate > 0:
            self._arrivals = arrival_times(
                options.rate, options.arrivals, start_s=time.perf_counter(), random_=random.Random()
            )

    def on_stop(self) -> None:
        self._in_flight.join()  # a slow answer counts, too: each ends within --timeout-s
        self._client.close()

    @locust.task
    def send_next(self) -> None:
        """Send a picture and wait for its answer; in an open loop wait for its time and do not wait for its answer."""
        picture = next(self._pictures)
        if self._arrivals is None:
            if not self._send(picture, time.perf_counter()):
                gevent.sleep(AFTER_AN_ERROR_S)
            return
        due_s = next(self._arrivals)
        gevent.sleep(max(0.0, due_s - time.perf_counter()))
        self._in_flight.spawn(self._send, picture, due_s)

    def _send(self, picture: Picture, due_s: float) -> bool:
        """Ask, record, and say whether the answer was valid."""
        left_s, error = time.perf_counter(), None
        try:
            self._ask(picture)
        except FaceAttributesError as caught:
            error = caught
        latency_ms = 1000 * (time.perf_counter() - due_s)
        reason = f"{type(error).__name__}: {error}" if error else ""
        request = Request(self.name, _UNIX_S + due_s, 1000 * (left_s - due_s), latency_ms, reason)
        self.environment.events.request.fire(
            request_type=self.protocol,
            name=self.name,
            response_time=latency_ms,
            response_length=0,
            exception=error,
            context={"request": request},
        )
        return error is None

    def _ask(self, picture: Picture) -> None:
        if self.wire == "tensor":
            self._client.infer(picture.canonical)
        else:
            self._client.predict(picture.encoded)

    @staticmethod
    def _endless(found: Pictures) -> Iterator[Picture]:
        while True:  # each user in an order of its own
            yield from random.sample(found.items, len(found.items))


class GrpcTensor(FaceAttributesUser):
    protocol, wire = "gRPC", "tensor"


class GrpcEncoded(FaceAttributesUser):
    protocol, wire = "gRPC", "encoded"


class HttpTensor(FaceAttributesUser):
    protocol, wire = "HTTP", "tensor"


class HttpEncoded(FaceAttributesUser):
    protocol, wire = "HTTP", "encoded"


def users_of(environment: locust.env.Environment) -> list[type[FaceAttributesUser]]:
    """Return the kinds that take part in the run."""
    return [user for user in environment.user_classes if issubclass(user, FaceAttributesUser)]


def open_client(user: type[FaceAttributesUser], options: Any) -> FaceAttributesClient:
    """Open a client that shows every failure: it neither tries again nor stops asking.

    Raises InvalidInput for a file of headers or certificates that cannot be used.
    """
    url = str(options.grpc_url if user.protocol == "gRPC" else options.http_url)
    files: dict[str, Any] = {name: Path(path) for name in FILES if (path := getattr(options, name))}
    server = ServerConnection(url, timeout_s=options.timeout_s, retry_for_s=0, **files)
    circuit = Circuit(failures_to_open=sys.maxsize)
    return FaceAttributesClient(url, wire=user.wire, circuit=circuit, **server.options())


@locust.events.init_command_line_parser.add_listener
def add_options(parser: LocustArgumentParser) -> None:
    group = parser.add_argument_group("Face attributes")
    group.add_argument("--grpc-url", env_var="GRPC_URL", default=f"grpc://127.0.0.1:{GRPC_PORT}", help="or grpcs://")
    group.add_argument("--http-url", env_var="HTTP_URL", default=f"http://127.0.0.1:{HTTP_PORT}", help="or https://")
    for name, help_ in FILES.items():
        group.add_argument(f"--{name.replace('_', '-')}", default="", help=help_)
    group.add_argument("--faces", default="", help="a manifest.csv or a folder of pictures; empty for synthetic ones")
    group.add_argument("--rate", type=float, default=0.0, help="requests/s of each user, an open loop; 0: closed loop")
    group.add_argument("--arrivals", choices=ARRIVALS, default="constant", help="of an open loop")
    group.add_argument("--shape", choices=("steady", *SHAPES), default="steady", help="of --users over --run-time")
    group.add_argument("--warm-up-s", type=float, default=2.0, help="at the start, sent and not counted")
    group.add_argument("--timeout-s", type=float, default=10.0, help="without an answer for so long: an error")
    group.add_argument("--objective-ms", type=float, default=250.0, help="goodput counts the answers within it")
    group.add_argument("--out", default="runs/loadtest", help="folder of the report; an earlier one is replaced")


@locust.events.init.add_listener
def prepare(environment: locust.env.Environment, **_: Any) -> None:
    """Set the shape, the time to end in and the recording up; end the program where the load cannot start."""
    options = environment.parsed_options
    environment.stop_timeout = environment.stop_timeout or options.timeout_s + 5
    if is_worker(environment):
        record_on_worker(environment)
    try:
        logging.info("sending %s", pictures(options.faces).description)
        if is_worker(environment):
            return
        if options.headless:
            served(environment)
        if options.shape != "steady":
            set_shape(environment)
    except (UserError, ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    Recording(environment, statistics=lambda: statistics(environment), on_complete=lambda r: complete(environment, r))


def set_shape(environment: locust.env.Environment) -> None:
    options = environment.parsed_options
    if not options.run_time:
        raise ValueError("a shape needs --run-time, over which it spreads")
    environment.shape_class = shapes.ScheduledShape(options.shape)
    environment.shape_class.runner = environment.runner


def served(environment: locust.env.Environment) -> dict[str, str]:
    """Return the server's side of the conditions, over the first user's protocol. Raises FaceAttributesError."""
    options, users = environment.parsed_options, users_of(environment)
    models = sorted({name for user in users for name in (*MODELS[user.wire], *_ensemble(user.wire))})
    with open_client(users[0], options) as client:
        return conditions.server_side(client, models)


def _ensemble(wire: Wire) -> tuple[str, ...]:
    return (ENSEMBLE_NAME,) if wire == "encoded" else ()


def statistics(environment: locust.env.Environment) -> tuple[ModelStatistics, ...]:
    """Return the server's counters; none where it does not answer, which the requests' errors will tell."""
    with suppress(FaceAttributesError), open_client(users_of(environment)[0], environment.parsed_options) as client:
        return client.statistics()
    return ()


def complete(environment: locust.env.Environment, recording: Recording) -> None:
    """Write the measurement and its report, and print it."""
    from loadtest.report import write_report  # matplotlib and pandas take no memory from the workers

    options = environment.parsed_options
    try:
        server = served(environment)
    except FaceAttributesError as error:
        server = {"server": f"gone at the end of the run: {error}"}
    names = [user.__name__ for user in environment.user_classes]
    sent = conditions.load_side(options, names, pictures(options.faces), recording)
    stated = {**sent, **server, **conditions.client_side()}
    measurement = Measurement.of(recording.requests, recording.stages, recording.window, stated)
    folder = Path(options.out)
    measurement.write(folder)
    text = f"\n{write_report(measurement, folder, objective_ms=options.objective_ms)}\n\nwrote {folder}/report.html"
    if options.headless:  # after locust's own, rounded tables
        environment.events.quit.add_listener(lambda **_: print(text))
    else:
        print(text)
