"""How many small faults in a module the tests notice: mutation testing with mutmut, in a copy under build/mutants.

Run by hand, from an environment that has the project, its tests and `mutmut>=3.8`::

    python .ci/mutants.py cost --sample 80 --seed 0
    python .ci/mutants.py cost --only '*mix_costs*'

prints the mutants that no test noticed, and how many were noticed; seconds a mutant. Of each module only those tests are run
that concern it. Messages of errors are left as they are.
"""

import argparse
import fnmatch
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
TESTS = {
    "cost": ["cost", "cost_properties"],
    "transport": ["transport", "transport_range", "transport_properties"],
    "block_cost": ["block_cost", "streaming", "cost_properties", "transport_properties"],
    "streaming": ["streaming", "sparse_kernel", "transport_properties"],
    "sparse_kernel": ["sparse_kernel", "streaming", "transport_properties"],
    "search": ["search", "bounds", "transport_properties"],
    "bounds": ["bounds"],
    "prototypes": ["prototypes", "streamed_training", "learner_input", "prototype_properties"],
    "sending": ["prototypes", "streamed_training", "scoring", "transport_properties", "prototype_properties"],
    "scoring": ["scoring", "spread", "streamed_training", "learner_input", "prototype_properties"],
    "partial_learner": ["partial_fit"],
    "partial_detector": ["partial_fit"],
    "learner_input": ["learner_input"],
    "starts": ["starts", "streamed_training", "prototype_properties"],
    "metrics": ["metrics", "au_spro", "metric_properties"],
    "regions": ["metrics", "au_spro", "metric_properties"],
    "metric_input": ["metrics", "au_spro", "metric_properties"],
    "counts": ["metrics", "au_spro", "metric_properties"],
    "embedding": ["embedding", "embedding_properties"],
}
SETTINGS = """\
[mutmut]
source_paths=pradot
only_mutate=pradot/{module}.py
do_not_mutate_patterns=
    raise PradotError\\(
pytest_add_cli_args=
    -p
    no:cacheprovider
pytest_add_cli_args_test_selection=
    {tests}
timeout_multiplier=5
track_dependencies=false
use_git_change_detection=false
"""


def main():
    """Copy the project, draw the sample, run mutmut, show what survived."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("module", choices=TESTS)
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="those whose name fits")
    parser.add_argument("--sample", type=int, help="so many mutants, drawn with the seed (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1)
    asked = parser.parse_args()

    copy = ROOT / "build" / "mutants" / asked.module
    shutil.rmtree(copy, ignore_errors=True)
    for folder in ("pradot", "tests"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    source = copy / "pradot" / f"{asked.module}.py"
    # Decorated functions are not mutated, and without this decorator nothing changes on a CPU that was left at its defaults.
    source.write_text(source.read_text().replace("    @ieee_float32()\n", ""))
    tests = [f"tests/test_{name}.py" for name in TESTS[asked.module]]
    (copy / "setup.cfg").write_text(SETTINGS.format(module=asked.module, tests="\n    ".join(tests)))

    os.chdir(copy)
    from mutmut.mutation.file_mutation import mutate_file_contents  # reads the settings of this folder

    names = mutate_file_contents(f"pradot/{asked.module}.py", source.read_text()).mutant_names
    names = sorted(f"pradot.{asked.module}.{name}" for name in names)
    n_all, names = len(names), [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in asked.only)]
    if asked.sample and asked.sample < len(names):
        names = sorted(random.Random(asked.seed).sample(names, asked.sample))
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | {"OMP_NUM_THREADS": "1"}
    command = [Path(sys.executable).with_name("mutmut")]
    subprocess.run([*command, "run", "--max-children", str(asked.jobs), *names], env=environment, check=True)
    results = subprocess.run(
        [*command, "results", "--all", "true"], env=environment, check=True, capture_output=True, text=True
    )
    outcome = dict(line.strip().split(": ") for line in results.stdout.splitlines() if ": " in line)
    left = [name for name in names if outcome[name] not in ("killed", "timeout")]
    for name in left:
        shown = subprocess.run([*command, "show", name], env=environment, check=True, capture_output=True, text=True)
        print(outcome[name], shown.stdout)
    print(f"{asked.module}: {len(names)} of {n_all} mutants, {len(names) - len(left)} noticed, {len(left)} not")


if __name__ == "__main__":
    main()
