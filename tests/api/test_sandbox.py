"""What the kernel refuses to a process that has given up its rights, tried in a real one."""

import ctypes
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

LANDLOCK = ctypes.CDLL(None).syscall(444, None, 0, 1) > 0

TRIALS = """
import json, os, socket, sys, threading
from api import sandbox

held = os.open(sys.argv[1], os.O_RDWR)
gauge = sandbox.open_gauge()
sandbox.die_with_parent()
sandbox.leave_network()
n_threads = sandbox.count_threads()
sandbox.forbid_paths()
sandbox.limit_resources(200_000_000, 64, gauge)
layers = sandbox.probe_layers(n_threads)

def connect():
    with socket.create_connection(("127.0.0.1", int(sys.argv[2])), timeout=2):
        pass

trials = {
    "read a file": lambda: open(sys.argv[1]),
    "list a folder": lambda: os.listdir("/"),
    "write a file": lambda: open(sys.argv[1] + ".new", "w"),
    "write to a file that is open": lambda: os.write(held, b"x"),
    "delete a file": lambda: os.unlink(sys.argv[1]),
    "run a program": lambda: os.execv(sys.executable, [sys.executable, "-c", ""]),
    "connect": connect,
    "take memory": lambda: bytearray(400_000_000),
}

def attempt(trial):
    try:
        trial()
    except (OSError, MemoryError) as error:
        return type(error).__name__
    return "done"

found = {}
def run():
    found.update({name: attempt(trial) for name, trial in trials.items()})

thread = threading.Thread(target=run)  # what later threads may do is what DuckDB's may
thread.start()
thread.join()
found["read what is open"] = os.pread(held, 4, 0).decode()
print(json.dumps({"found": found, "layers": layers}))
"""


@pytest.mark.skipif(not LANDLOCK, reason="this kernel has no Landlock")
def test_a_sealed_process_reads_what_is_open_and_nothing_else(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-c", TRIALS, str(kept), str(server.getsockname()[1])]
        ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    said = json.loads(ran.stdout)
    assert said["layers"] == {"landlock": True, "network_namespace": True, "limits": True}
    assert said["found"].pop("read what is open") == "kept"
    assert "done" not in said["found"].values(), said["found"]
    assert kept.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_layers_that_do_not_hold_are_said_so() -> None:
    probe = "import json; from api.sandbox import probe_layers; print(json.dumps(probe_layers(1)))"
    ran = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert set(json.loads(ran.stdout).values()) == {False}


def test_threads_from_before_landlock_are_not_counted_as_held() -> None:
    script = (
        "import json, threading, time; from api import sandbox\n"
        "threading.Thread(target=time.sleep, args=(5,), daemon=True).start()\n"
        "n = sandbox.count_threads(); sandbox.forbid_paths()\n"
        "print(json.dumps(sandbox.probe_layers(n)['landlock']))"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout) is False
