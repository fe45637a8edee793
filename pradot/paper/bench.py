"""The benchmark: independent runs on one machine or many, which may be stopped at any moment and started again.

A job is one run of `pradot.paper.runs.run`. Finished jobs are found by their records; runs that need the same features compute
them once, whichever process comes first. On one machine joblib spreads the jobs over processes, on many Dask distributed does.
"""

import functools
import hashlib
import os
import signal
import threading
import time
import traceback
from pathlib import Path
from typing import NamedTuple

import joblib
import torch
import tqdm
from joblib.externals.loky.process_executor import TerminatedWorkerError

from pradot.encoder import make_encoder
from pradot.errors import PradotError, is_out_of_memory
from pradot.names import shown
from pradot.network import check_allowed, is_this_machine
from pradot.paper.identity import identify
from pradot.paper.jobs import Job, list_ablation_jobs, list_jobs
from pradot.paper.provenance import other_code
from pradot.paper.records import summary
from pradot.paper.runs import find_record, run
from pradot.paper.watch import Watch
from pradot.progress import progress_bar

__all__ = ["Job", "Outcome", "bench", "list_ablation_jobs", "list_jobs"]

TIMEOUT = 10  # seconds in which a scheduler answers


class Outcome(NamedTuple):
    """What became of a job."""

    job: Job
    path: Path | None  # of its record; None: it failed
    is_new: bool  # False: finished before
    error: str | None  # one line


def bench(jobs, out="runs", *, n_jobs=1, scheduler=None, cache=None, again=False, progress=False):
    """Do the jobs that have no record yet.

    Parameters
    ----------
    jobs : sequence of Job
    out : str or Path
        Folder of records, see `pradot.paper.runs.run`.
    n_jobs : int
        Processes at once on this machine; the threads of torch are divided among them. 1: in this process.
    scheduler : str, optional
        Address of a running Dask scheduler, such as ``tcp://10.0.0.1:8786``; its workers do the jobs. They must see `out`, the
        data, the weights and `cache` under the same paths. Scheduler and workers can run code in this process and it in theirs:
        they must be one's own. Without an address nothing of Dask is started or listened to.
    cache : str or Path, optional
        Folder of computed features, see `Encoder.features`; without one each job computes its own.
    again : bool
        Also do the finished ones that other code than today's made, see `pradot.paper.runs.run`.
    progress : bool
        Show a progress bar with the time left, a line for each job that ends, and one for a job that has not ended for long
        (see `pradot.paper.watch`; on this machine alone): it goes on, for who knows whether it is stuck.

    Returns
    -------
    list of Outcome
        In the order of `jobs`, each job once. A job that failed leaves no record and is tried again by the next call.

    Raises
    ------
    PradotError
        No scheduler answers, or it went away; or it is on another machine and the network is forbidden (`pradot.network`).
        What is finished stays.
    """
    jobs = list(dict.fromkeys(jobs))
    out = Path(out).absolute()
    cache = None if cache is None else Path(cache).absolute()
    outcomes = {}
    with progress_bar(len(jobs), "looking for finished runs", "run", progress) as bar:
        for job in jobs:
            outcome = _look_up(job, out, again)
            if outcome is not None:
                outcomes[job] = outcome
            bar.update()
    waiting = [job for job in jobs if job not in outcomes]
    if progress:
        _tell_of_other_code([outcome.path for outcome in outcomes.values() if outcome.path])
    if waiting:
        do = functools.partial(_do, out=out, cache=cache, again=again)
        with progress_bar(len(waiting), "bench", "run", progress) as bar, Watch(bar) as watch:
            if scheduler:
                made = _on_cluster(do, waiting, scheduler)
            else:
                made = _on_this_machine(do, waiting, n_jobs, progress, watch)
            for outcome in made:
                watch.end(outcome.job)
                outcomes[outcome.job] = outcome
                if progress:
                    said = summary(find_record(outcome.path)) if outcome.error is None else f"FAILED: {outcome.error}"
                    tqdm.tqdm.write(shown(f"{outcome.job}: {said}"))
                bar.update()
    return [outcomes[job] for job in jobs]


@functools.lru_cache(maxsize=4)
def _encoder(name, weights, scales, image_size, device, note):
    encoder = make_encoder(name, weights, scales=scales, image_size=image_size, device=device)
    encoder.notes += [note] if note else []
    return encoder


def _encoder_of(job, device):
    scales = tuple(sorted(job.preset.encoder_scales))
    return _encoder(job.encoder, job.weights, scales, job.preset.image_size, device, job.note)


def _tell_of_other_code(paths):
    records = [record for path in paths if (record := find_record(path))]
    found = [said for record in records if (said := other_code(record))]
    if found:
        makers = ", ".join(dict.fromkeys(found))
        tqdm.tqdm.write(f"note: {len(found)} of the {len(paths)} runs finished before are of {makers}; --again replaces them")


def _look_up(job, out, again):
    """The outcome of a job that is finished or cannot be started, else None."""
    try:
        # On the CPU: this machine may have no such device as those that do the work.
        encoder = _encoder_of(job, "cpu")
        _, _, path = identify(job.dataset, job.root, job.category, job.preset, encoder, seed=job.seed, out=out)
    except Exception as error:  # anything may be wrong with one job; the others go on
        return Outcome(job, None, False, _one_line(error))
    return None if find_record(path, again=again) is None else Outcome(job, path, False, None)


def _do(job, out, cache, again, progress=False):
    """Do one job, in whatever process."""
    try:
        encoder = _encoder_of(job, job.device)
        settings = {"seed": job.seed, "out": out, "cache": cache, "again": again, "progress": progress}
        _, path, is_new = run(job.dataset, job.root, job.category, job.preset, encoder, **settings)
    except Exception as error:  # anything may be wrong with one job; the others go on
        return Outcome(job, None, False, _one_line(error))
    return Outcome(job, path, is_new, None)


def _do_in_child(do, job, parent, n_threads):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the parent ends this one
    torch.set_num_threads(n_threads)
    _end_with(parent)
    return do(job)


@functools.cache
def _end_with(parent):
    """Let this process end when its parent has, which could not tell it if it was killed."""

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _on_this_machine(do, jobs, n_jobs, progress, watch):
    """Outcomes of the jobs as they end; `watch` is told of each when its turn comes."""
    if n_jobs == 1:
        for job in jobs:
            watch.begin(job)
            yield do(job, progress=progress)
        return
    n_threads = max(1, torch.get_num_threads() // n_jobs)
    settings = {"backend": "loky", "inner_max_num_threads": n_threads}

    def task(job):
        watch.begin(job)
        return joblib.delayed(_do_in_child)(do, job, os.getpid(), n_threads)

    left = dict.fromkeys(jobs)
    try:
        with joblib.parallel_config(n_jobs=n_jobs, **settings):
            # No more are handed out than there are processes: the turn of the others has not come.
            parallel = joblib.Parallel(return_as="generator_unordered", batch_size=1, pre_dispatch="n_jobs")
            for outcome in parallel(task(job) for job in jobs):
                del left[outcome.job]
                yield outcome
    except TerminatedWorkerError:
        tqdm.tqdm.write(f"note: a process was ended from outside (memory?); the {len(left)} runs left go on one at a time")
    watch.begun.clear()
    for job in left:
        try:
            with joblib.parallel_config(n_jobs=2, **settings):  # one would be this process
                yield joblib.Parallel()([task(job)])[0]
        except TerminatedWorkerError:
            yield Outcome(job, None, False, "its process was ended from outside, most likely because memory ran out")


def _on_cluster(do, jobs, address):
    """Outcomes of the jobs as they end."""
    try:
        from distributed import CancelledError, Client, as_completed
    except ImportError as error:
        raise PradotError("--scheduler needs Dask distributed: pip install 'pradot[cluster]'") from error
    if not is_this_machine(address):
        check_allowed(f"connecting to the Dask scheduler {address}")
    try:
        client = Client(address, timeout=TIMEOUT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise PradotError(f"no Dask scheduler answers at {address} ({error}): start one with `dask scheduler`") from error
    with client:
        if not client.scheduler_info()["workers"]:
            tqdm.tqdm.write(f"note: the scheduler {address} has no workers yet; the runs wait for them")
        # The key says what is done: a job that a killed run left on a worker is taken over, not done beside it.
        keys = {job: f"pradot-{hashlib.sha256(repr((job, do.keywords)).encode()).hexdigest()}" for job in jobs}
        futures = {client.submit(do, job, key=keys[job]): job for job in jobs}
        for future in as_completed(futures, loop=client.loop):
            try:
                error = future.exception()  # the job's own are in its outcome
            except CancelledError as lost:
                raise PradotError(
                    f"the scheduler {address} is gone or has dropped the runs; what is finished stays, start again"
                ) from lost
            yield future.result() if error is None else Outcome(futures[future], None, False, _one_line(error))


def _one_line(error):
    if is_out_of_memory(error):
        return "memory ran out; fewer images a step, fewer jobs at once or the preset fast need less"
    text = (str(error).splitlines() or [""])[0]
    if isinstance(error, PradotError):
        return text
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {text}{where}"
