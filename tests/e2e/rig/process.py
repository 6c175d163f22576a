"""A child process with its output in files, which never outlives the test run."""

import ctypes
import signal
import socket
import subprocess
import time

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1

running = []  # every process of this test run, for the report of a failed test


def _die_with_parent():
    # Holds through exec. The kernel counts the spawning *thread* as the parent, so spawn from the main thread only.
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


_next_port = 20000


def free_port():
    """A port nobody listens on, below the range the kernel takes outgoing ports from, each handed out once."""
    global _next_port
    while _next_port < 32000:
        _next_port += 1
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", _next_port))
                return _next_port
            except OSError:
                continue
    raise AssertionError("no free port between 20000 and 32000")


class Process:
    def __init__(self, name, command, folder, env=None, cwd=None):
        self.name = name
        self.stdout_path = folder / f"{name}.out"
        self.stderr_path = folder / f"{name}.err"
        # Appended to, so that a restarted server keeps its history.
        with open(self.stdout_path, "ab") as out, open(self.stderr_path, "ab") as err:
            self.child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                cwd=cwd,
                preexec_fn=_die_with_parent,
            )
        self.started = time.monotonic()
        running.append(self)

    @property
    def pid(self):
        return self.child.pid

    def alive(self):
        return self.child.poll() is None

    def must_be_alive(self):
        assert self.alive(), f"{self.name} ended with {self.child.returncode}:\n{self.tail()}"

    def stdout(self):
        return self.stdout_path.read_text(errors="replace")

    def stderr(self):
        return self.stderr_path.read_text(errors="replace")

    def output(self):
        return self.stdout() + self.stderr()

    def tail(self, lines=40):
        parts = []
        for what, text in (("stdout", self.stdout()), ("stderr", self.stderr())):
            if text.strip():
                parts.append(f"[{what}]\n" + "\n".join(text.splitlines()[-lines:]))
        return "\n".join(parts) or "(no output)"

    def send(self, signal_number):
        self.child.send_signal(signal_number)

    def wait(self, seconds):
        return self.child.wait(timeout=seconds)

    def kill(self):
        """SIGKILL, and back only when the process is gone."""
        if self.alive():
            self.child.kill()
        self.child.wait(timeout=10)

    def stop(self, seconds=5):
        """SIGTERM, and SIGKILL for one that does not listen."""
        if self.alive():
            self.child.terminate()
            try:
                self.child.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.kill()
        if self in running:
            running.remove(self)
        return self.child.returncode
