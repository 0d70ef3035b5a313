"""The process that speaks Flight SQL: what becomes of the service when it is overrun, or dies."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import adbc_driver_flightsql.dbapi as flightsql
import httpx2
import psutil
import pyarrow as pa
import pyarrow.flight as fl
import pytest

from api.flightsql import CommandStatementQuery, pack
from tests.api.flight_client import (
    HEADER as CALL_HEADER,
)
from tests.api.flight_client import (
    LONG,
    WAIT_S,
    ask,
    fetch,
    refused,
    wait_for_running,
)
from tests.api.own_server import RunningServer, running_server
from tests.api.small_pool import make_atlas

TOKEN = "a-token-of-20-letters"
MEMORY_BYTES = 200_000_000


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_atlas(tmp_path_factory.mktemp("at las ü"))


@pytest.fixture(scope="module")
def server(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("server")
    limits = {"workers": 3, "worker_threads": 1, "flight_memory_bytes": MEMORY_BYTES}
    with running_server(atlas, folder, flight_port=0, **limits) as running:
        yield running


def find_process(server: RunningServer) -> psutil.Process:
    """The process that speaks Flight SQL; its command line is read once it runs its own program."""
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        for child in psutil.Process(server.process.pid).children():
            try:
                if "api.flight_process" in child.cmdline():
                    return child
            except psutil.Error:
                continue
        time.sleep(0.02)
    raise AssertionError("no process speaks Flight SQL")


def answers(server: RunningServer) -> bool:
    try:
        with fl.connect(server.urls[-1]) as client:
            return bool(fetch(client, CommandStatementQuery("SELECT 1 AS a")).num_rows)
    except (pa.ArrowException, OSError):
        return False


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check_http(server: RunningServer) -> None:
    said = httpx2.get(f"{server.urls[0]}v1/models", timeout=WAIT_S)
    assert said.status_code == 200


def test_a_killed_process_frees_its_workers_and_another_answers(server: RunningServer) -> None:
    told: list[str] = []
    with fl.connect(server.urls[-1]) as client:
        ticket = fl.Ticket(pack(CommandStatementQuery(LONG)))

        def run() -> None:
            told.append(refused(lambda: client.do_get(ticket).read_all()))

        runs = Thread(target=run)
        runs.start()
        wait_for_running(server, 1)
        killed = find_process(server)
        killed.kill()
        check_http(server)
        runs.join()
        wait_for_running(server, 0)
    wait_until(lambda: answers(server))
    assert find_process(server).pid != killed.pid
    logged = [json.loads(line) for line in server.log.read_text().splitlines() if line[:1] == "{"]
    ended = [line for line in logged if "process ended" in line["event"]]
    assert ended[0]["exit_status"] == -signal.SIGKILL
    assert not [line for line in logged if "exception" in line]


def test_a_message_beyond_its_memory_harms_no_other(server: RunningServer) -> None:
    wait_until(lambda: answers(server))
    service, first = psutil.Process(server.process.pid), find_process(server)
    before, peaks = service.memory_info().rss, [0]
    with fl.connect(server.urls[-1]) as client:
        large = CommandStatementQuery("x" * 400_000_000)
        call = Thread(target=lambda: refused(fetch, client, large))
        call.start()
        while call.is_alive():
            check_http(server)
            peaks.append(service.memory_info().rss)
            time.sleep(0.02)
    assert max(peaks) < before + 50_000_000
    assert len(peaks) > 2  # HTTP answered while the message came
    wait_until(lambda: answers(server))
    assert find_process(server).pid != first.pid
    check_http(server)


def test_streamed_answers_are_whole(server: RunningServer) -> None:
    wait_until(lambda: answers(server))
    limits = {f"{CALL_HEADER}x-max-bytes": "999000000", f"{CALL_HEADER}x-max-rows": "9000000"}
    with flightsql.connect(server.urls[-1], limits, autocommit=True) as connection:
        rows = ask(connection, "SELECT i, i * 3 AS b FROM range(3_000_000) t(i)")
    i = pa.chunked_array([pa.array(range(3_000_000), pa.int64())])
    assert rows["i"].combine_chunks().equals(i.combine_chunks())
    assert rows["b"][-1].as_py() == 3 * 2_999_999


def test_a_reader_that_waits_holds_few_bytes_of_the_service(server: RunningServer) -> None:
    wait_until(lambda: answers(server))
    service, process = psutil.Process(server.process.pid), find_process(server)
    before = service.memory_info().rss, process.memory_info().rss
    headers = [(b"x-max-bytes", b"9" * 14), (b"x-max-rows", b"9" * 12)]
    query = "SELECT i, repeat('x', 1000) FROM range(1_000_000_000) t(i)"
    with fl.connect(server.urls[-1]) as client:
        reader = client.do_get(
            fl.Ticket(pack(CommandStatementQuery(query))), fl.FlightCallOptions(headers=headers)
        )
        assert reader.read_chunk().data.num_rows > 0
        time.sleep(1)
        after = service.memory_info().rss, process.memory_info().rss
        assert after[0] - before[0] < 40_000_000 and after[1] - before[1] < 80_000_000
        reader.cancel()
    wait_for_running(server, 0)


def test_a_stop_leaves_no_process_and_the_token_is_in_no_command_line(
    atlas: Path, tmp_path: Path
) -> None:
    chosen = {"workers": 2, "worker_threads": 1, "token": TOKEN, "shutdown_s": 1}
    with running_server(atlas, tmp_path, flight_port=0, **chosen) as server:
        process = find_process(server)
        assert TOKEN not in " ".join(process.cmdline())
        assert TOKEN not in Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
        assert httpx2.get(f"{server.urls[1]}v1/models", timeout=WAIT_S).status_code == 200
        server.process.terminate()
        assert server.process.wait(20) == 0
        assert not process.is_running()
        assert "process ended" not in server.log.read_text()


def test_the_process_dies_with_the_service(atlas: Path, tmp_path: Path) -> None:
    with running_server(atlas, tmp_path, flight_port=0, workers=2, worker_threads=1) as server:
        process = find_process(server)
        server.process.kill()
        server.process.wait(WAIT_S)
        wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
