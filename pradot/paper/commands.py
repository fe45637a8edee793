"""What each command of the command line does and prints.

Each takes the options that `pradot.cli` has read and returns its exit status (None: 0), and imports what it needs itself: no
command waits for what another one needs.
"""

import sys
from pathlib import Path

import numpy as np
import torch

from pradot.encoder import cache_folder, make_encoder, pick_device
from pradot.errors import PradotError
from pradot.files import check_folder
from pradot.names import shown
from pradot.progress import progress_bar
from pradot.weights import OFFLINE_ENCODER, PAPER_ENCODER, weights_available


def run_command(options):
    """Fit, score and evaluate categories; a line for each."""
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


def repeat_command(options):
    """Do the run of a record again and print the comparison."""
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


def bench_command(options):
    """Do many runs and print what became of them, or verify those that are there."""
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


def tables_command(options):
    """Write the tables and print them."""
    from pradot.paper.tables import formatted, write_tables

    for name, table in write_tables(options.runs, options.out).items():
        print(f"{Path(options.out) / name}.{{csv,md,tex}}\n")
        print(formatted(table).reset_index().to_markdown(index=False, disable_numparse=True) + "\n")


def notebooks_command(options):
    """Run notebooks."""
    from pradot.paper.notebooks import PATH_PARAMETERS, run_notebooks
    from pradot.paper.parameters import parameter_value, read_parameters

    parameters = {}
    if options.f:
        parameters |= read_parameters(Path(options.f))
    for name, text in options.p:
        is_path = name in PATH_PARAMETERS and text.lower() not in ("null", "none")  # never a number or YAML, as 1e3 and {a}
        parameters[name] = text if is_path else parameter_value(text)
    run_notebooks(options.names, parameters, options.out, options.keep_outputs)


def speed_command(options):
    """Measure, write what was measured and print it."""
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


def predict_command(options):
    """Score a folder of images with a saved model; those that cannot be read are named at the end."""
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
                found.append(detector.branch_and_score_maps(part))
            except ImageError:  # the others are scored all the same
                part, readable = [], part
                for path in readable:
                    try:
                        found.append(detector.branch_and_score_maps([path]))
                    except ImageError as error:
                        problems.append(error)
                    else:
                        part.append(path)
            scored += part
            bar.update(len(paths[start : start + 16]))
    if scored:
        shapes = [image_shape(path) for path in scored]
        maps, of_scores = (
            Maps({branch: torch.cat([one[branch] for one in kind]) for branch in kind[0]}, shapes, keep_bytes=0)
            for kind in zip(*found, strict=True)
        )
        scores = [image_score(one, detector.top_part) for one in of_scores]
        low, high = write_predictions(out, scored, maps, scores=scores)
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


def doctor_command(options):
    """Print what is installed, and which weights, data and kernel are at hand."""
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
