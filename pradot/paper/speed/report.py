"""What was measured as a file and as a table."""

import json

import pandas as pd

from pradot.files import replacing
from pradot.paper.speed.measurement import GRIDS


def write(found, path):
    """Write what `measure` found as JSON."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


def summary_table(found):
    """What `measure` found beside the targets, as a DataFrame of text: what, measured, target."""
    steps = {side: found[f"step_{side}"] for side in GRIDS}
    rows = []
    for side, step in steps.items():
        size = f"step {side} x {side}"
        n = step["pot_iterations_timed"]
        how = "" if n == 100 else f" (100 iterations extrapolated from {n})"
        rows += [
            (f"{size}: POT's solver, s{how}", f"{step['pot_s']:.1f}", ""),
            (f"{size}: faithful path, s", f"{step['faithful_s']:.2f}", ""),
            (f"{size}: fast path, s ({step['fast_passes']:.2f} passes)", f"{step['fast_s']:.2f}", ""),
            (f"{size}: the two float32 matrix products, s", f"{step['cost_product_s'] + step['barycentre_product_s']:.2f}", ""),
            (f"{size}: POT / faithful", f"{step['pot_over_faithful']:.1f}", f">= {10 if side == 14 else 20}"),
            (f"{size}: POT / fast", f"{step['pot_over_fast']:.0f}", f">= {30 if side == 14 else 100}"),
            (f"{size}: fast / matrix products", f"{step['fast_over_matmul']:.2f}", "<= 1.0"),
            (f"{size}: L1 between the plans of POT and faithful", f"{step['l1_between_plans']:.1e}", "< 1e-5"),
            (
                f"{size}: peak memory, fast (faithful), GB",
                f"{step['fast_peak_gb']:.2f} ({step['faithful_peak_gb']:.2f})",
                "<= 1.5",
            ),
        ]
    rows.append(("one image scored by four branches / encoder alone", f"{found['score']['all_over_encoder']:.2f}", "<= 1.3"))
    fit = found["fit"]
    what = f"fit, preset fast, offline encoder, {fit['dataset']} {fit['category']} ({fit['n_images']} images), s"
    rows.append((what, f"{fit['seconds']:.0f}", "<= 90 (bottle)"))
    steps = found["steps"]
    what = f"steps of fast to the held-out transport loss of the paper's training after {max(map(int, steps['paper']))}"
    rows.append((what, "not reached" if steps["fast_steps_to_paper"] is None else str(steps["fast_steps_to_paper"]), ""))
    return pd.DataFrame(rows, columns=["what", "measured", "target"])
