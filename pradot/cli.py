"""The command line: a thin face over the method and the companion."""

import argparse
import os
import re
import signal
import sys
import warnings
from contextlib import contextmanager, suppress

import pradot
from pradot.errors import PradotError, is_out_of_memory
from pradot.names import shown
from pradot.network import SWITCH, offline
from pradot.paper import commands, data_commands
from pradot.weights import OFFLINE_ENCODER, PAPER_ENCODER


def main(arguments=None):
    """Run one command; return its exit status.

    0: done, 1: an error that the printed line explains, 2: wrong usage, 130: stopped by Ctrl-C, 143: by SIGTERM.

    Of ``repeat`` 1 says that numbers differ, and 2 that there was an error.
    """
    parser = _parser()
    options = parser.parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):  # not every name of a file is text
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    warnings.showwarning = lambda message, *_, **__: print(f"warning: {shown(message)}", file=sys.stderr)
    try:
        with offline(options.offline), _stoppable():
            return options.command(options) or 0
    except (PradotError, OSError, MemoryError, RuntimeError) as error:
        if options.debug or not (isinstance(error, PradotError | OSError) or is_out_of_memory(error)):
            raise
        print(f"pradot: {shown(_explained(error))}", file=sys.stderr)
        return options.error_status
    except KeyboardInterrupt as stopped:
        print("pradot: stopped; what is finished stays and is not done again", file=sys.stderr)
        return 128 + (stopped.args[0] if stopped.args else signal.SIGINT)


@contextmanager
def _stoppable():
    """Let Ctrl-C and SIGTERM end the block, which tidies up; a second one ends the process at once."""
    stopped = []

    def stop(number, _):
        if stopped:
            os.write(2, b"\npradot: stopped at once; what is finished stays and is not done again\n")
            os._exit(128 + number)
        stopped.append(number)
        raise KeyboardInterrupt(number)

    before = {}
    with suppress(ValueError):  # in a thread there are no signals
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup and scripts do
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            # Once stopped, the process only has to end: one more signal ends it as any program, without a traceback.
            signal.signal(number, signal.SIG_DFL if stopped else handler)


def _explained(error):
    if not is_out_of_memory(error):
        return error
    return "memory ran out; fewer images a step (run --batch-size N) or the preset fast (run --preset fast) need less"


def _parser():
    parser = argparse.ArgumentParser(prog="python -m pradot", description=pradot.__doc__.splitlines()[0])
    parser.add_argument("--version", action="version", version=pradot.__version__)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    common.add_argument("--offline", action="store_true", help=f"connect to no other machine (as the environment's {SWITCH}=1)")
    common.set_defaults(error_status=1)
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    run = subparsers.add_parser("run", parents=[common], help="fit, score and evaluate; write one record per category")
    run.add_argument("--dataset", required=True, help="mvtec_ad, mvtec_loco, visa, drawn or folder")
    run.add_argument("--root", help="folder of the data set (default: looked for where PRADOT_DATA says, else in data)")
    run.add_argument("--category", default="all", help="one category, or all that are found (default)")
    run.add_argument(
        "--preset",
        default="paper",
        help="paper (default), sound, fast, best, or another method: patchcore-1, patchcore-10, patchcore-10-position, padim",
    )
    _add_encoder(run, default="auto")
    run.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="0 by default")
    run.add_argument("--max-steps", type=_whole(1), metavar="N", help="stop training after N steps (labelled shortened)")
    run.add_argument("--batch-size", type=_whole(1), metavar="N", help="images a step (labelled shortened)")
    run.add_argument("--out", default="runs", help="folder of the run records (default: runs)")
    _add_again(run)
    run.add_argument("--save-model", metavar="DIR", help="also save each fitted model in DIR/CATEGORY, for predict")
    run.set_defaults(command=commands.run_command)

    repeat = subparsers.add_parser(
        "repeat", parents=[common], help="repeat the run of a record and compare; exit status 0: equal or within, 1: differs"
    )
    repeat.add_argument("record", metavar="RECORD.json", help="a record that run or bench wrote")
    repeat.add_argument("--root", help="folder of the data set (default: where the record says, else as for run)")
    _add_encoder(repeat, default=None, device=None)
    repeat.add_argument("--threads", type=_whole(1, 1024), metavar="N", help="of torch (default: as many as then)")
    repeat.add_argument("--out", help="keep the repeat's own record in this new folder (default: it is not kept)")
    repeat.set_defaults(command=commands.repeat_command, error_status=2)

    data = subparsers.add_parser("data", parents=[common], help="which data sets are there; download one; unpack an archive")
    data.add_argument("--root", help="folder of the data sets (default: the one PRADOT_DATA names, else data)")
    data.add_argument("--quick", action="store_true", help="only count: open no image")
    data.add_argument("--names", action="store_true", help="only the names of those found, one a line")
    data.set_defaults(command=data_commands.data_command)
    what = data.add_subparsers(metavar="[get NAME | add ARCHIVE]")
    get = what.add_parser("get", parents=[common], help="download, verify and unpack a data set; goes on where it was cut")
    get.add_argument("name", help="mvtec_ad, mvtec_loco or visa")
    get.add_argument("--accept-licence", action="store_true", help="you accept the licence that is shown")
    add = what.add_parser("add", parents=[common], help="unpack an archive that you have downloaded")
    add.add_argument("archive", help="the tar or zip file of a data set")
    for parser_of, command in ((get, data_commands.data_get_command), (add, data_commands.data_add_command)):
        parser_of.add_argument("--root", help="folder to put it in (default: the one PRADOT_DATA names, else data)")
        parser_of.set_defaults(command=command)

    bench = subparsers.add_parser("bench", parents=[common], help="many runs, on one machine or many; finished ones are kept")
    bench.add_argument("--dataset", help="mvtec_ad, mvtec_loco, visa, drawn (default) or folder")
    bench.add_argument("--root", help="folder of the data set (default: looked for where PRADOT_DATA says, else in data)")
    bench.add_argument("--category", nargs="+", dest="categories", metavar="NAME", help="which ones (default: all)")
    bench.add_argument("--preset", nargs="+", default=["paper"], metavar="NAME", help="presets, as for run (default: paper)")
    bench.add_argument("--ablation", metavar="NAME", help="each row of an ablation, around the presets (alpha, n, few, ...)")
    _add_encoder(bench, default="auto")
    bench.add_argument("--max-steps", type=_whole(1), metavar="N", help="stop training after N steps (labelled shortened)")
    bench.add_argument("--batch-size", type=_whole(1), metavar="N", help="images a step (labelled shortened)")
    bench.add_argument("--seeds", type=_whole(1), default=1, dest="n_seeds", metavar="N", help="seeds 0 to N - 1 (default: 1)")
    bench.add_argument("--out", default="runs", help="folder of the run records (default: runs)")
    _add_again(bench)
    where = bench.add_mutually_exclusive_group()
    where.add_argument("--jobs", type=_whole(1), default=1, metavar="N", help="processes at once on this machine (default: 1)")
    where.add_argument("--scheduler", metavar="ADDRESS", help="a running Dask scheduler, such as tcp://10.0.0.1:8786")
    bench.add_argument(
        "--verify", action="store_true", help="run nothing: compare the records in --out with the paper's numbers"
    )
    bench.set_defaults(command=commands.bench_command)

    tables = subparsers.add_parser("tables", parents=[common], help="tables from run records, beside the paper's numbers")
    tables.add_argument("--runs", default="runs", help="folder of run records (default: runs)")
    tables.add_argument("--out", default="figures/tables", help="folder of tables (default: figures/tables)")
    tables.set_defaults(command=commands.tables_command)

    notebooks = subparsers.add_parser("notebooks", parents=[common], help="run the notebooks in order with papermill")
    notebooks.add_argument("names", nargs="*", metavar="NAME", help="which ones, such as 06_benchmark or 06; default all")
    notebooks.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    notebooks.add_argument("-f", metavar="FILE", help="a YAML file of parameters")
    notebooks.add_argument("--out", help="folder of the executed notebooks (default: build/notebooks)")
    notebooks.add_argument(
        "--keep-outputs", action="store_true", help="write the outputs into notebooks/ too, as they are committed"
    )
    notebooks.set_defaults(command=commands.notebooks_command)

    predict = subparsers.add_parser("predict", parents=[common], help="score a folder of images with a saved model")
    predict.add_argument("--model", required=True, help="folder written by run --save-model or Pradot.save")
    predict.add_argument("--images", required=True, help="folder of images")
    predict.add_argument("--out", required=True, help="folder for scores.csv and the heat maps")
    _add_encoder(predict, default=None)
    predict.set_defaults(command=commands.predict_command)

    speed = subparsers.add_parser("speed", parents=[common], help="measure steps, scoring and a fit; write one JSON file")
    speed.add_argument("--out", required=True, metavar="FILE.json", help="where to write what was measured")
    speed.add_argument("--root", help="folder of MVTec AD, for real features (default: drawn ones)")
    speed.add_argument("--quick", action="store_true", help="minutes; POT's iterations are extrapolated from a few")
    _add_encoder(speed, default="auto")
    speed.set_defaults(command=commands.speed_command)

    doctor = subparsers.add_parser("doctor", parents=[common], help="what is installed, which weights and data are at hand")
    doctor.add_argument("--root", help="folder of data sets to look at")
    doctor.set_defaults(command=commands.doctor_command)
    return parser


def _whole(lowest, highest=2**32 - 1):
    """A type of argument: whole numbers from `lowest` to `highest`."""

    def read(text):
        if not re.fullmatch(r"[0-9]+", text) or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"{text!r} is no whole number from {lowest} to {highest}")
        return int(text)

    return read


def _add_encoder(parser, default, device="auto"):
    parser.add_argument(
        "--encoder",
        default=default,
        metavar="NAME",
        help=f"a timm backbone, {OFFLINE_ENCODER} (weights installed), or FILE.py:FUNCTION that returns a torch module"
        + (f" (default: {PAPER_ENCODER}, and {OFFLINE_ENCODER} where its weights cannot be had)" if default else ""),
    )
    parser.add_argument("--weights", metavar="FILE", help="local file of weights for the timm backbone")
    chosen = "cuda where there is one" if device else "the kind that the record was made on"
    parser.add_argument("--device", default=device, help=f"cpu, cuda, cuda:1, ... (default: {chosen})")


def _add_again(parser):
    parser.add_argument("--again", action="store_true", help="replace finished runs that other code of pradot made")
