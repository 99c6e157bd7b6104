"""The wrappers' promises that need no privilege: errors, messages, processes, sockets, inotify."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from runtime.linux import capabilities, files, inotify, libc, mounts, process, sockets, terminals


def test_an_error_says_call_reason_and_path() -> None:
    with pytest.raises(FileNotFoundError, match="openat2: No such file") as caught:
        files.openat2(mounts.AT_FDCWD, "/nowhere/at/all", os.O_PATH)
    assert caught.value.filename == "/nowhere/at/all"
    assert caught.value.errno == 2


def test_a_call_that_this_machine_has_not_is_enosys() -> None:
    with pytest.raises(OSError, match="nothing: ") as caught:
        libc.syscall(None, "nothing")
    assert caught.value.errno == 38


def test_a_fork_s_child_is_ours_and_has_its_own_memory() -> None:
    reading, writing = os.pipe()
    pid = process.fork()
    if pid == 0:
        os.write(writing, f"{os.getpid()} {os.getppid()}".encode())
        os._exit(7)
    os.close(writing)
    assert os.read(reading, 100).decode() == f"{pid} {os.getpid()}"
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


def test_a_sibling_is_a_child_of_the_same_parent() -> None:
    reading, writing = os.pipe()
    pid = process.fork()
    if pid == 0:
        sibling = process.fork(sibling=True)
        if sibling:
            os.write(writing, str(sibling).encode())
        os._exit(3 if sibling else 4)
    os.close(writing)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
    sibling = int(os.read(reading, 100))
    os.close(reading)
    assert os.waitstatus_to_exitcode(os.waitpid(sibling, 0)[1]) == 4


def test_a_group_that_is_none_is_an_error() -> None:
    fd = os.open("/", os.O_RDONLY)
    try:
        with pytest.raises(OSError, match="clone3"):
            process.fork(into=fd)
    finally:
        os.close(fd)


def test_a_process_is_known_by_pid_and_start() -> None:
    own = process.start_time(os.getpid())
    assert own is not None
    fd = process.open_pidfd(os.getpid(), own)
    assert fd is not None
    os.close(fd)
    assert process.open_pidfd(os.getpid(), own + 1) is None
    assert process.start_time(2**22 + 1) is None
    assert process.open_pidfd(2**22 + 1, None) is None


def test_a_process_that_has_ended_does_not_run_though_nobody_has_asked_after_it() -> None:
    own = process.start_time(os.getpid()) or 0
    assert process.runs(os.getpid(), own)
    assert not process.runs(os.getpid(), own + 1)
    child = subprocess.Popen(["true"])
    started = process.start_time(child.pid)
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert process.start_time(child.pid) == started
    assert not process.runs(child.pid, started or 0)
    child.wait()
    assert process.start_time(child.pid) is None


def test_a_process_is_known_by_whether_it_handles_a_signal() -> None:
    handled = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        assert process.handles_signal(os.getpid(), signal.SIGUSR1)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        assert not process.handles_signal(os.getpid(), signal.SIGUSR1)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        assert process.handles_signal(os.getpid(), signal.SIGUSR1)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGUSR1})
        signal.signal(signal.SIGUSR1, handled)
    assert not process.handles_signal(2**22 + 1, signal.SIGUSR1)


def test_capability_numbers_are_the_kernel_s() -> None:
    assert capabilities.NUMBERS["CHOWN"] == 0
    assert capabilities.NUMBERS["SYS_ADMIN"] == 21
    assert capabilities.NUMBERS["CHECKPOINT_RESTORE"] == 40
    assert capabilities.last_capability() >= 37
    status = Path("/proc/self/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("CapEff")]
    assert capabilities.effective() == int(line.split()[1], 16)


def test_only_a_multiplexer_of_a_devpts_has_a_peer() -> None:
    with open("/dev/null", "rb") as null, pytest.raises(OSError, match="not a terminal"):
        terminals.open_peer(null.fileno())
    if not os.access("/dev/pts/ptmx", os.R_OK | os.W_OK):
        pytest.skip("the multiplexer of this host's devpts is for root alone")
    master = os.open("/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY)
    peer = terminals.open_peer(master)
    assert os.isatty(peer) and not os.get_inheritable(peer)
    terminals.resize(master, rows=11, columns=22)
    assert terminals.size(peer) == (11, 22)
    os.close(peer)
    os.close(master)


# --- sockets --------------------------------------------------------------------------------


def test_messages_and_descriptors_arrive(tmp_path: Path) -> None:
    path = str(tmp_path / ("d" * 100) / "socket")  # longer than sockaddr_un holds
    os.mkdir(os.path.dirname(path))
    with sockets.listen(path) as listener, sockets.connect(path) as client:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        server, _ = listener.accept()
        with server:
            reading, writing = os.pipe()
            sockets.send(client, {"a": [1, "ü"]}, (writing,))
            os.close(writing)
            message, fds = sockets.receive(server)
            assert message == {"a": [1, "ü"]}
            os.write(fds[0], b"x")
            assert os.read(reading, 1) == b"x"
            assert not os.get_inheritable(fds[0])
            os.close(fds[0])
            os.close(reading)
            large = {"text": "y" * 1_000_000}
            sockets.send(client, large)
            assert sockets.receive(server) == (large, [])
    with pytest.raises(ConnectionRefusedError):
        sockets.connect(path)
    sockets.listen(path).close()  # what a dead process left is replaced


def test_the_end_of_a_connection_is_an_eof() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    with ours, pytest.raises(EOFError):
        sockets.receive(ours)


@pytest.mark.parametrize("raw", [b"x", b"j", b"j[]", b"jnull", b"j{", b"f", b"j\xff"])
def test_what_is_no_message_is_a_value_error(raw: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = len(os.listdir("/proc/self/fd"))
    with ours, theirs:
        with open("/dev/null", "rb") as null:
            socket.send_fds(theirs, [raw], [] if raw == b"f" else [null.fileno()])
        with pytest.raises(ValueError, match=r".*"):
            sockets.receive(ours)
        assert len(os.listdir("/proc/self/fd")) == before


def test_a_message_in_a_file_is_bounded() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    body = os.memfd_create("huge", os.MFD_CLOEXEC)
    os.truncate(body, 1 << 40)
    with ours, theirs:
        socket.send_fds(theirs, [b"f"], [body])
        os.close(body)
        with pytest.raises(ValueError, match="too large"):
            sockets.receive(ours)


def test_a_message_is_json_of_one_line() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        sockets.send(theirs, {"op": "x"})
        assert json.loads(ours.recv(100)[1:]) == {"op": "x"}


# --- inotify --------------------------------------------------------------------------------


def test_changes_of_a_directory_are_told(tmp_path: Path) -> None:
    with inotify.Inotify() as notify:
        assert notify.read() == []
        watch = notify.add(tmp_path, inotify.IN_CREATE | inotify.IN_DELETE)
        (tmp_path / "grüße").touch()
        assert select.select([notify], [], [], 5)[0]
        assert notify.read() == [inotify.Event(watch, inotify.IN_CREATE, "grüße")]
        (tmp_path / "grüße").unlink()
        assert [event.mask for event in notify.read()] == [inotify.IN_DELETE]
        notify.remove(watch)
        assert [event.mask for event in notify.read()] == [inotify.IN_IGNORED]
        with pytest.raises(FileNotFoundError):
            notify.add(tmp_path / "absent", inotify.IN_CREATE)
