"""The command line: a thin face over the method and the companion."""

import argparse
import os
import re
import signal
import sys
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
import yaml

import pradot
from pradot.encoder import cache_folder, make_encoder, pick_device
from pradot.errors import PradotError, is_out_of_memory
from pradot.files import check_folder
from pradot.names import shown
from pradot.network import SWITCH, offline
from pradot.progress import progress_bar
from pradot.weights import OFFLINE_ENCODER, PAPER_ENCODER, weights_available


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
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common], help="fit, score and evaluate; write one record per category")
    run.add_argument("--dataset", required=True, help="mvtec_ad, mvtec_loco, visa, drawn or folder")
    run.add_argument("--root", help="folder of the data set (default: looked for where PRADOT_DATA says, else in data)")
    run.add_argument("--category", default="all", help="one category, or all that are found (default)")
    run.add_argument("--preset", default="paper", help="paper (default), sound or fast")
    _add_encoder(run, default="auto")
    run.add_argument("--seed", type=_whole(0), default=0, metavar="N", help="0 by default")
    run.add_argument("--max-steps", type=_whole(1), metavar="N", help="stop training after N steps (labelled shortened)")
    run.add_argument("--batch-size", type=_whole(1), metavar="N", help="images a step (labelled shortened)")
    run.add_argument("--out", default="runs", help="folder of the run records (default: runs)")
    _add_again(run)
    run.add_argument("--save-model", metavar="DIR", help="also save each fitted model in DIR/CATEGORY, for predict")
    run.set_defaults(command=_run)

    repeat = commands.add_parser(
        "repeat", parents=[common], help="repeat the run of a record and compare; exit status 0: equal or within, 1: differs"
    )
    repeat.add_argument("record", metavar="RECORD.json", help="a record that run or bench wrote")
    repeat.add_argument("--root", help="folder of the data set (default: where the record says, else as for run)")
    _add_encoder(repeat, default=None, device=None)
    repeat.add_argument("--threads", type=_whole(1, 1024), metavar="N", help="of torch (default: as many as then)")
    repeat.add_argument("--out", help="keep the repeat's own record in this new folder (default: it is not kept)")
    repeat.set_defaults(command=_repeat, error_status=2)

    data = commands.add_parser("data", parents=[common], help="which data sets are there; download one; unpack an archive")
    data.add_argument("--root", help="folder of the data sets (default: the one PRADOT_DATA names, else data)")
    data.add_argument("--quick", action="store_true", help="only count: open no image")
    data.add_argument("--names", action="store_true", help="only the names of those found, one a line")
    data.set_defaults(command=_data)
    what = data.add_subparsers(metavar="[get NAME | add ARCHIVE]")
    get = what.add_parser("get", parents=[common], help="download, verify and unpack a data set; goes on where it was cut")
    get.add_argument("name", help="mvtec_ad, mvtec_loco or visa")
    get.add_argument("--accept-licence", action="store_true", help="you accept the licence that is shown")
    add = what.add_parser("add", parents=[common], help="unpack an archive that you have downloaded")
    add.add_argument("archive", help="the tar or zip file of a data set")
    for parser_of, command in ((get, _data_get), (add, _data_add)):
        parser_of.add_argument("--root", help="folder to put it in (default: the one PRADOT_DATA names, else data)")
        parser_of.set_defaults(command=command)

    bench = commands.add_parser("bench", parents=[common], help="many runs, on one machine or many; finished ones are kept")
    bench.add_argument("--dataset", help="mvtec_ad, mvtec_loco, visa, drawn (default) or folder")
    bench.add_argument("--root", help="folder of the data set (default: looked for where PRADOT_DATA says, else in data)")
    bench.add_argument("--category", nargs="+", dest="categories", metavar="NAME", help="which ones (default: all)")
    bench.add_argument("--preset", nargs="+", default=["paper"], metavar="NAME", help="presets (default: paper)")
    bench.add_argument("--ablation", metavar="NAME", help="each row of an ablation, around the presets (alpha, n, reg, ...)")
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
    bench.set_defaults(command=_bench)

    tables = commands.add_parser("tables", parents=[common], help="tables from run records, beside the paper's numbers")
    tables.add_argument("--runs", default="runs", help="folder of run records (default: runs)")
    tables.add_argument("--out", default="figures/tables", help="folder of tables (default: figures/tables)")
    tables.set_defaults(command=_tables)

    notebooks = commands.add_parser("notebooks", parents=[common], help="run the notebooks in order with papermill")
    notebooks.add_argument("names", nargs="*", metavar="NAME", help="which ones, such as 06_benchmark or 06; default all")
    notebooks.add_argument("-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="a parameter")
    notebooks.add_argument("-f", metavar="FILE", help="a YAML file of parameters")
    notebooks.add_argument("--out", help="folder of the executed notebooks (default: build/notebooks)")
    notebooks.add_argument(
        "--keep-outputs", action="store_true", help="write the outputs into notebooks/ too, as they are committed"
    )
    notebooks.set_defaults(command=_notebooks)

    predict = commands.add_parser("predict", parents=[common], help="score a folder of images with a saved model")
    predict.add_argument("--model", required=True, help="folder written by run --save-model or Pradot.save")
    predict.add_argument("--images", required=True, help="folder of images")
    predict.add_argument("--out", required=True, help="folder for scores.csv and the heat maps")
    _add_encoder(predict, default=None)
    predict.set_defaults(command=_predict)

    speed = commands.add_parser("speed", parents=[common], help="measure steps, scoring and a fit; write one JSON file")
    speed.add_argument("--out", required=True, metavar="FILE.json", help="where to write what was measured")
    speed.add_argument("--root", help="folder of MVTec AD, for real features (default: drawn ones)")
    speed.add_argument("--quick", action="store_true", help="minutes; POT's iterations are extrapolated from a few")
    _add_encoder(speed, default="auto")
    speed.set_defaults(command=_speed)

    doctor = commands.add_parser("doctor", parents=[common], help="what is installed, which weights and data are at hand")
    doctor.add_argument("--root", help="folder of data sets to look at")
    doctor.set_defaults(command=_doctor)
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


def _run(options):
    from pradot.paper.datasets import find_root, list_categories
    from pradot.paper.presets import get_preset
    from pradot.paper.provenance import other_code
    from pradot.paper.records import summary
    from pradot.paper.runs import run

    preset = get_preset(options.preset, max_steps=options.max_steps, batch_size=options.batch_size)
    device = pick_device(options.device)  # before any data are drawn
    root = find_root(options.dataset, options.root)
    found = list_categories(options.dataset, root)
    categories = found if options.category == "all" else [options.category]
    size = preset.image_size
    encoder = make_encoder(options.encoder, options.weights, scales=preset.encoder_scales, image_size=size, device=device)
    print(f"{encoder.name} at {encoder.image_size} px, feature maps {encoder.describe_grids()}", flush=True)
    for category in categories:
        model = Path(options.save_model) / category if options.save_model else None
        record, path, is_new = run(
            options.dataset,
            root,
            category,
            preset,
            encoder,
            seed=options.seed,
            out=options.out,
            model=model,
            cache=cache_folder(),
            again=options.again,
            progress=True,
        )
        print(shown(f"{category}: {summary(record)}; {'' if is_new else 'finished before, '}{path}"), flush=True)
        for note in record["notes"] if is_new else ():
            if note not in encoder.notes:  # said before
                print(f"  note: {shown(note)}")
        if not is_new and other_code(record):
            print(f"  note: that run was of {other_code(record)}; --again replaces it")


def _repeat(options):
    from pradot.paper.repeat import TOLERANCE, repeat

    names = ("root", "encoder", "weights", "device", "threads", "out")
    settings = {name: getattr(options, name) for name in names}
    found = repeat(options.record, **settings, progress=True, say=lambda line: print(shown(line), flush=True))
    of_one_kind = found.table.index.str.contains(": ")
    table = found.table[~of_one_kind | (found.table["verdict"] == "differs")]
    texts = {name: table[name].map("{:.4f}".format) for name in ("then", "now")}
    texts["difference"] = table["difference"].map(lambda value: f"{value:{'+.0e' if 0 < abs(value) < 5e-5 else '+.4f'}}")
    print(shown(f"\n{table.assign(**texts).to_markdown(disable_numparse=True)}\n"))
    if of_one_kind.any():
        largest = found.table[of_one_kind]["difference"].abs().max()
        print(f"metrics of single kinds of defects: {of_one_kind.sum()}, largest difference {largest:.1g} points")
    print(*found.lines, *([f"the repeat's record: {found.path}"] if found.path else []), sep="\n")
    meaning = {
        "equal": "the same numbers to the last bit",
        "within tolerance": f"no metric is more than {100 * TOLERANCE:g} points from then",
        "differs": f"a metric is more than {100 * TOLERANCE:g} points from then",
    }
    print(f"{found.verdict}: {meaning[found.verdict]}")
    return 1 if found.verdict == "differs" else 0


def _data(options):
    from pradot.paper.archives import by_hand
    from pradot.paper.datasets import DATASETS, DOWNLOADED, data_folder, find_datasets

    found = find_datasets(options.root)
    if options.names:
        print("\n".join(found))
        return
    problems = 0
    for name in DOWNLOADED:
        if name in found:
            problems += _show_data(name, found[name], options.quick)
        else:
            folder = data_folder(options.root)
            print(f"{DATASETS[name].title}: not in {folder}; python -m pradot data get {name}\n  {by_hand(name, folder)}\n")
    if problems:
        raise PradotError(f"{problems} problem(s) with the data, listed above")


def _show_data(name, root, quick):
    """Print what is found of one data set; return the number of problems."""
    from pradot.paper.datasets import DATASETS
    from pradot.paper.inventory import counts_table, examine

    findings, n_published = examine(name, root, quick=quick, progress=True), len(DATASETS[name].counts)
    n_found = sum(finding.published is not None for finding in findings)
    print(f"{DATASETS[name].title}: {root}, {n_found} of {n_published} categories; images found (published)\n")
    print(shown(counts_table(findings).to_markdown(disable_numparse=True)) + "\n")
    for finding in findings:
        for problem in finding.problems:
            print(shown(f"  {finding.category}: {problem}"))
    return sum(len(finding.problems) for finding in findings)


def _data_get(options):
    from pradot.paper.archives import describe_source, get
    from pradot.paper.datasets import data_folder

    print(describe_source(options.name, data_folder(options.root)), flush=True)
    _show_data(options.name, get(options.name, options.root, accept_licence=options.accept_licence, progress=True), quick=True)


def _data_add(options):
    from pradot.paper.archives import SOURCES, add, identify

    archive = Path(options.archive)
    verified = identify(archive, progress=True) if archive.is_file() else None
    if archive.is_file() and verified is None:
        starts = ", ".join(f"{source.sha256[:8]} ({name})" for name, source in SOURCES.items())
        print(f"note: the sha256 of {archive} is not that of an official archive, which starts {starts}")
    target = add(archive, options.root, progress=True, verified=verified)
    print(f"unpacked{' and verified' if verified else ''}; {archive} is no longer needed")
    _show_data(target.name, target, quick=True)


def _bench(options):
    from pradot.paper.ablations import ablation_table, get_ablation, run_ablation, write_ablation
    from pradot.paper.bench import bench, list_jobs
    from pradot.paper.datasets import find_root
    from pradot.paper.presets import get_preset
    from pradot.paper.tables import formatted

    if options.verify:
        return _verify(options)
    options.dataset = options.dataset or "drawn"
    root = find_root(options.dataset, options.root)
    names = ("categories", "n_seeds", "encoder", "weights", "device")
    settings = {name: getattr(options, name) for name in names}
    presets = [get_preset(name, max_steps=options.max_steps, batch_size=options.batch_size) for name in options.preset]
    done = {"n_jobs": options.jobs, "scheduler": options.scheduler, "cache": cache_folder(), "again": options.again}
    done["progress"] = True
    if options.ablation is None:
        outcomes = bench(list_jobs(options.dataset, root, presets=presets, **settings), options.out, **done)
    else:
        ablations = [get_ablation(options.ablation, base) for base in presets]
        results = [run_ablation(one, options.dataset, root, out=options.out, **settings, **done) for one in ablations]
        outcomes = [outcome for result in results for of_row in result.outcomes.values() for outcome in of_row]
        for result in results:
            print(f"\n{result.ablation.question}\n")
            print(formatted(ablation_table(result)).reset_index().to_markdown(index=False, disable_numparse=True))
            print("".join(f"\n{label}: {reason}" for label, reason in result.reasons.items()))
            print(f"{write_ablation(result, options.out)}.{{csv,md,tex}}")
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    before = sum(outcome.error is None and not outcome.is_new for outcome in outcomes)
    print(
        f"{len(outcomes)} runs: {before} finished before, {len(outcomes) - before - len(failed)} done, {len(failed)} failed; "
        f"records in {options.out}"
    )
    for outcome in failed:
        print(shown(f"failed: {outcome.job}: {outcome.error}"), file=sys.stderr)
    if failed:
        print("The same command tries these again and keeps the others.", file=sys.stderr)
    return 1 if failed else 0


def _verify(options):
    from pradot.paper.verify import verify

    table, others = verify(options.out, [options.dataset] if options.dataset else None, options.categories)
    print(table.drop(columns="why").to_markdown(index=False, floatfmt=("", "", "", ".1f", ".1f", "+.1f", ".1f", "")))
    for what, verdict in (("off", "OFF"), ("not comparable", "not comparable")):
        for _, line in table[table["verdict"] == verdict].iterrows():
            reason = line["why"] if what != "off" else f"tolerance {line['tolerance']:g}"
            print(
                f"{what}: {line['dataset']} {line['category']}, {line['metric']}: this run {line['this run']:.1f}, "
                f"paper {line['paper']:.1f} ({reason})"
            )
    for other in others:
        print(f"not comparable: {other}")
    counts = table["verdict"].value_counts()
    print(f"{counts.get('within', 0)} numbers within their tolerance, {counts.get('OFF', 0)} off")
    return 1 if counts.get("OFF", 0) else 0


def _tables(options):
    from pradot.paper.tables import formatted, write_tables

    for name, table in write_tables(options.runs, options.out).items():
        print(f"{Path(options.out) / name}.{{csv,md,tex}}\n")
        print(formatted(table).reset_index().to_markdown(index=False, disable_numparse=True) + "\n")


def _notebooks(options):
    from pradot.paper.notebooks import PATH_PARAMETERS, run_notebooks

    parameters = {}
    if options.f:
        parameters |= _read_parameters(Path(options.f))
    for name, text in options.p:
        is_path = name in PATH_PARAMETERS and text.lower() not in ("null", "none")  # never a number or YAML, as 1e3 and {a}
        parameters[name] = text if is_path else _value(text)
    run_notebooks(options.names, parameters, options.out, options.keep_outputs)


def _read_parameters(path):
    """Names with values from a YAML file."""
    try:
        loaded = _plain_yaml(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise PradotError(f"{path} is no readable YAML file: {' '.join(str(error).split())}") from error
    if not isinstance(loaded, dict):
        raise PradotError(f"{path} holds {type(loaded).__name__}, not names with values")
    odd = [name for name in loaded if not isinstance(name, str)]
    if odd:
        raise PradotError(f"{path} names parameters {odd}, which are no text; expected lines such as max_steps: 60")
    return loaded


class _PlainLoader(yaml.SafeLoader):
    """YAML without aliases, of which a few lines stand for more values than memory holds, or for one that holds itself."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError(f"aliases such as *{self.peek_event().anchor} are not taken: write the value out")
        return super().compose_node(parent, index)


def _plain_yaml(text):
    return yaml.load(text, Loader=_PlainLoader)


def _value(text):
    """A parameter's value: numbers, true, false, null, YAML in brackets, braces or quotes; all else is text as it stands."""
    constants = {"true": True, "false": False, "null": None, "none": None}
    if text.lower() in constants:
        return constants[text.lower()]
    if text[:1] in ("[", "{", "'", '"'):
        try:
            return _plain_yaml(text)
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            raise PradotError(f"cannot read the parameter value {text[:80]!r}: {str(error).splitlines()[0]}") from error
    if re.fullmatch(r"[+-]?(0|[1-9][0-9]*)", text):  # 01 is a name
        return int(text)
    if re.fullmatch(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", text) and not re.fullmatch(r"[0-9]+", text):
        return float(text)
    return text


def _speed(options):
    from pradot.paper.speed import measure, summary_table, write

    if Path(options.out).is_dir():
        raise PradotError(f"--out {options.out} is a folder: give the name of a file in it, such as {options.out}/speed.json")
    check_folder(Path(options.out).parent, "what is measured (--out)")
    found = measure(
        options.root,
        encoder=options.encoder,
        weights=options.weights,
        quick=options.quick,
        device=pick_device(options.device),
        progress=True,
    )
    write(found, options.out)
    print(f"{summary_table(found).to_markdown(index=False, disable_numparse=True)}\n\n{options.out}")


def _predict(options):
    from pradot.detector import Pradot
    from pradot.images import ImageError, find_images, image_shape
    from pradot.maps import image_score
    from pradot.paper.evaluation import Maps
    from pradot.paper.own import write_predictions
    from pradot.saved import fitted_with

    paths, out = find_images(options.images), Path(options.out)
    check_folder(out, "scores and heat maps (--out)")
    encoder = None
    if options.encoder or options.weights:
        made_with = fitted_with(options.model)
        encoder = make_encoder(
            options.encoder or made_with["name"],
            options.weights,
            scales=made_with["scales"],
            image_size=made_with["image_size"],
            device=options.device,
        )
    detector = Pradot.load(options.model, encoder=encoder, device=pick_device(options.device))
    scored, found, shapes, scores, problems = [], [], [], [], []
    with progress_bar(len(paths), "scoring", "image") as bar:
        for start in range(0, len(paths), 16):  # a folder of any size takes the memory of a few images
            part = paths[start : start + 16]
            try:
                found.append(detector.branch_maps(part))
            except ImageError:  # the others are scored all the same
                part, readable = [], part
                for path in readable:
                    try:
                        found.append(detector.branch_maps([path]))
                    except ImageError as error:
                        problems.append(error)
                    else:
                        part.append(path)
            scored += part
            bar.update(len(paths[start : start + 16]))
    if scored:
        shapes = [image_shape(path) for path in scored]
        maps = Maps({branch: torch.cat([one[branch] for one in found]) for branch in found[0]}, shapes, keep_bytes=0)
        scores = [image_score(anomaly_map, detector.top_part) for anomaly_map in maps]
        low, high = write_predictions(out, scored, maps, top_part=detector.top_part)
        order = np.argsort(scores)[::-1][:5]
        print(
            f"{len(scored)} images scored: {out / 'scores.csv'}, heat maps in {out / 'heat_maps'} "
            f"(colours {low:.3f} to {high:.3f})"
        )
        print("highest: " + ", ".join(shown(f"{scored[i].name} {scores[i]:.3f}") for i in order))
    for problem in problems[:-1]:
        print(f"pradot: {shown(problem)}", file=sys.stderr)
    if problems:
        raise PradotError(f"{problems[-1]} {len(problems)} of {len(paths)} images have no score.")


def _doctor(options):
    import platform

    from jupyter_client.kernelspec import KernelSpecManager

    from pradot.paper.datasets import data_folder, find_datasets, list_categories
    from pradot.paper.provenance import versions

    print("versions   " + ", ".join(f"{name} {version}" for name, version in versions().items()))
    cuda = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
    print(
        f"device     cpu ({platform.machine()}, {torch.get_num_threads()} threads)"
        + (f", cuda: {cuda}" if cuda else ", no cuda")
    )
    for name in (OFFLINE_ENCODER, PAPER_ENCODER):
        available, how = weights_available(name, ask=False)
        print(f"weights    {name}: {'available' if available else 'NOT available'} ({how})")
    cache = cache_folder()
    size = sum(path.stat().st_size for path in cache.rglob("*") if path.is_file()) if cache.is_dir() else 0
    print(f"features   {size / 1e9:.2f} GB computed features in {cache} (delete the folder to free them)")
    for name, folder in find_datasets(options.root).items():
        print(shown(f"data       {name} in {folder}: {', '.join(list_categories(name, folder))}"))
    print(f"data       looked in {data_folder(options.root)} (--root, else PRADOT_DATA, else data); drawn data need nothing")
    kernels = KernelSpecManager().find_kernel_specs()
    print(f"kernel     python3: {kernels.get('python3', 'NOT found: pip install ipykernel in this environment')}")
