"""Commands in processes of their own, to be killed and stopped.

A process that has imported everything forks one for each command, which saves the seconds of the imports; from there on it is
a process like any other: in a session of its own, as a terminal starts it, with a file for what it prints, and its own end.
"""

import atexit
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback

import psutil

# What a command's process does first: the whole way through the program in a fraction of a second.
QUICK = """
from dataclasses import replace
from pradot.paper.presets import PRESETS
PRESETS["fast"] = replace(PRESETS["fast"], image_size=64, n_prototypes=1, max_steps=2, batch_size=2)
"""
COMMAND = "import sys; from pradot.cli import main; sys.exit(main({arguments!r}))"


class Starter:
    """Starts commands; its process has seconds to import while other tests run, until the first one that asks it."""

    def __init__(self):
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PRADOT_TEST": f"killed-{os.getpid()}"}
        environment.pop("PRADOT_DATA", None)
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.mark = environment["PRADOT_TEST"]
        self.is_ready = False

    def ask(self, **request):
        if not self.is_ready:
            assert self.process.stdout.readline() == "ready\n"
            self.is_ready = True
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def start(self, folder, *arguments, first="", code=None, env=None):
        """Start a command line (or `code`) in a folder, after the code `first`."""
        code = code or COMMAND.format(arguments=[str(argument) for argument in arguments])
        said = folder / f"said-{time.monotonic_ns()}"
        pid = self.ask(code=QUICK + first + "\n" + code, folder=str(folder), env=env or {}, said=str(said))
        return Command(self, pid, said)

    def run(self, folder, *arguments, **settings):
        return self.start(folder, *arguments, **settings).wait()

    def living(self):
        """Processes that commands have started, other than their common parent."""
        found = []
        for process in psutil.process_iter():
            try:
                ours = process.environ().get("PRADOT_TEST") == self.mark and process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if ours and process.pid != self.process.pid:
                found.append(process)
        return found

    def close(self):
        for process in self.living():
            process.kill()
        self.process.kill()
        self.process.communicate()


class Command:
    """A running command."""

    def __init__(self, starter, pid, said):
        self.starter, self.pid, self.said_in = starter, pid, said

    def wait(self, seconds=240):
        """Wait for its end; the exit status, below 0 for a signal."""
        self.status = self.starter.ask(wait=self.pid, seconds=seconds)
        assert self.status is not None, f"it hangs; it has said: {self.said}"
        return self

    def is_running(self):
        """Whether it has not ended yet."""
        return psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE  # until `wait` has read its status

    @property
    def said(self):
        """What it has printed."""
        return self.said_in.read_text() if self.said_in.exists() else ""

    def kill(self):
        """End it, its workers and its kernels as a power cut would; whether it was still running."""
        others = []
        try:
            process = psutil.Process(self.pid)
            others = process.children(recursive=True)
            if process.status() != psutil.STATUS_ZOMBIE:
                os.killpg(self.pid, signal.SIGKILL)
        except (psutil.Error, ProcessLookupError):  # it has just ended
            pass
        for other in others:
            try:
                other.kill()
            except psutil.Error:
                pass
        return self.wait().status == -signal.SIGKILL

    def stop(self, number=signal.SIGINT):
        """Send a signal to its process group, as a terminal does."""
        os.killpg(self.pid, number)

    def children(self):
        return psutil.Process(self.pid).children(recursive=True)


def wait_for(what, seconds=120, pause=0.005):
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(pause)
    return found


def _serve():
    """Fork a process for each request that has code; only these processes return, with what they have to do."""
    import torch

    import pradot.cli
    import pradot.paper.bench
    import pradot.paper.notebooks
    import pradot.paper.own
    import pradot.paper.tables  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # else collecting would copy the memory that the processes share
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            answer = _wait(**request)
        else:
            answer = os.fork()
            if answer == 0:
                return request
        print(json.dumps(answer), flush=True)
    sys.exit()


def _wait(wait, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pid, status = os.waitpid(wait, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return None


if __name__ == "__main__":
    asked = _serve()
    os.setsid()
    os.chdir(asked["folder"])
    os.environ.update(asked["env"])
    for number, path, how in ((0, os.devnull, os.O_RDONLY), (1, asked["said"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        os.dup2(os.open(path, how, 0o666), number)
    os.dup2(1, 2)
    try:
        exec(asked["code"], {"__name__": "command"})
        status = 0
    except SystemExit as left:
        status = left.code
    except BaseException:  # what the program should have caught
        traceback.print_exc()
        status = 1
    # The usual end but for what takes all modules apart, which would copy the memory that the processes share.
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)
