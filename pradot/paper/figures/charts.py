"""Numbers as curves, dots, bars and coloured tables."""

import textwrap

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns

from pradot.errors import PradotError
from pradot.paper.figures.style import DIVERGING, PALETTE
from pradot.paper.tables import COLUMNS, LOCO_COLUMNS


def roc_curves(records, title=None):
    """ROC curves of image scores of some run records.

    Parameters
    ----------
    records : dict of str to dict
        Record by name.

    Returns
    -------
    matplotlib Figure
    """
    from sklearn.metrics import roc_curve

    fig, ax = plt.subplots(figsize=(4.2, 3.6))
    for name, record in records.items():
        labels = np.array([image["defect"] != "good" for image in record["images"]])
        scores = np.array([image["score"] for image in record["images"]])
        fpr, tpr, _ = roc_curve(labels, scores, drop_intermediate=False)
        ax.plot(fpr, tpr, label=f"{name}: {100 * record['metrics']['image_auroc']:.1f} %")
    ax.plot([0, 1], [0, 1], color="0.7", lw=1, ls=":")
    ax.set(xlabel="false positive rate", ylabel="true positive rate", title=title or "", xlim=(-0.01, 1.01), ylim=(-0.01, 1.01))
    ax.legend(title="image AUROC", frameon=False, loc="lower right")
    return fig


def dots(table, xlabel="percent"):
    """A table as dots: one line per row, one kind of marker per column.

    Parameters
    ----------
    table : DataFrame
        Numbers of one unit; NaN leaves a gap.
    xlabel : str

    Returns
    -------
    matplotlib Figure
    """
    fig, ax = plt.subplots(figsize=(6.2, 0.9 + 0.27 * len(table)))
    for marker, column in zip("os^DvP<X", table, strict=False):
        ax.plot(table[column], range(len(table)), marker, ms=7, alpha=0.85, label=column)
    ax.set_yticks(range(len(table)), [str(name) for name in table.index])
    ax.set(xlabel=xlabel, ylim=(len(table) - 0.5, -0.5))
    ax.grid(axis="y", color="0.9")
    ax.legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def difference_heat_map(table, title=""):
    """Differences from the paper as colours and numbers.

    Parameters
    ----------
    table : DataFrame
        See `pradot.paper.tables.benchmark_table`; it must have a column ``(metric, "difference")``.
    title : str

    Returns
    -------
    matplotlib Figure
        Categories that were not run are left out; colours are even around 0.
    """
    differences = table.xs("difference", axis=1, level=1).dropna(how="all")
    fig, ax = plt.subplots(figsize=(2.2 + 1.3 * differences.shape[1], 1.1 + 0.3 * len(differences)))
    limit = max(0.5, differences.abs().max().max())
    colours = {"cmap": DIVERGING, "vmin": -limit, "vmax": limit, "cbar_kws": {"label": "this run - paper (points)"}}
    sns.heatmap(differences, annot=True, fmt="+.1f", ax=ax, **colours)
    ax.set(xlabel="", ylabel="", title=title)
    ax.tick_params(axis="y", rotation=0)
    return fig


def training_curves(learners):
    """Transport loss, movement of the prototypes and marginal error, step by step.

    Parameters
    ----------
    learners : dict of str to PrototypeLearner
        Fitted learners by name.

    Returns
    -------
    matplotlib Figure
    """
    fig, axes = plt.subplots(1, 3, figsize=(10.5, 2.9))
    for colour, (name, learner) in zip(sns.color_palette(), learners.items(), strict=False):
        history, steps = learner.history_, np.arange(1, learner.n_steps_ + 1)
        axes[0].plot(steps, history["loss"], color=colour, lw=1, alpha=0.6)
        axes[0].plot(history["validation_step"], history["validation_loss"], "o-", color=colour, ms=3, label=name)
        axes[1].plot(steps, history["movement"], color=colour, label=name)
        axes[2].plot(steps, history["marginal_error"], color=colour, label=name)
    axes[0].set(ylabel="transport loss <T, M> (no unit)", title="loss: batch (thin), validation (dots)")
    axes[1].set(ylabel="movement, mean of 1 - cos", title="how far prototypes move")
    axes[2].set(ylabel="L1 error of the marginal", title="what Sinkhorn leaves open")
    for ax in axes:
        values = np.concatenate([line.get_ydata() for line in ax.lines])
        wide = (
            values.min() > 0 and values.max() > 10 * values.min()
        )  # a logarithmic axis of less than a decade has no good ticks
        ax.set(xlabel="step", yscale="log" if wide else "linear")
        if not wide:
            ax.set_ylim(bottom=0)
            ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    if axes[0].get_yscale() == "log":
        axes[0].yaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axes[0].yaxis.set_major_formatter("{x:g}")
        axes[0].yaxis.set_minor_formatter("")
    axes[1].legend(frameon=False)
    return fig


def alpha_curves(table):
    """AUROC over alpha, one line per kind of defect, one panel per metric.

    Parameters
    ----------
    table : DataFrame
        Columns ``alpha``, ``defects`` (name), ``metric`` (panel), ``AUROC`` (percent).

    Returns
    -------
    matplotlib Figure
    """
    metrics = list(dict.fromkeys(table["metric"]))
    fig, axes = plt.subplots(1, len(metrics), figsize=(4.2 * len(metrics) + 1.3, 3.2), squeeze=False)
    names = list(dict.fromkeys(table["defects"]))
    for ax, metric in zip(axes[0], metrics, strict=True):
        sns.lineplot(
            table[table["metric"] == metric],
            x="alpha",
            y="AUROC",
            hue="defects",
            style="defects",
            hue_order=names,
            style_order=names,
            markers=True,
            ax=ax,
            legend=ax is axes[0, -1],
        )
        ax.set(xlabel="alpha (0: global, above: local)", ylabel="AUROC (%)", title=metric)
    sns.move_legend(axes[0, -1], "upper left", bbox_to_anchor=(1, 1), frameon=False, title=None)
    return fig


def ablation_plot(ablation, table):
    """One panel per metric: a line over the values of an ablation, or a point for each of its rows.

    Parameters
    ----------
    ablation : pradot.paper.ablations.Ablation
        Its rows without a value, where others have one, are dashed lines; with groups of rows, each is a line.
    table : DataFrame
        See `pradot.paper.ablations.ablation_table`; with several seeds bars show one standard deviation.

    Returns
    -------
    matplotlib Figure

    Raises
    ------
    PradotError
        No row has numbers.
    """
    metrics = [*COLUMNS.values(), *LOCO_COLUMNS.values()]
    titles = [title for title, what in table if title in metrics and what == "this run" and table[title, what].notna().any()][
        :4
    ]
    if not titles:
        raise PradotError(f"no row of the ablation {ablation.name} has numbers: there is nothing to plot")
    values = {row.label: row.value for row in ablation.rows if row.value is not None}
    groups, dashed = {}, None  # labels of their rows; what those without a value are
    for row in ablation.rows:
        groups.setdefault(row.group, []).append(row.label)
    height = 2.9 if values else 1.0 + 0.32 * len(table)
    fig, axes = plt.subplots(1, len(titles), figsize=(2.7 * len(titles) + 0.6, height), sharey=not values, squeeze=False)
    for number, (ax, title) in enumerate(zip(axes[0], titles, strict=True)):
        means = table[title, "this run"]
        shown = means.dropna()
        colour = sns.color_palette(PALETTE)[number]
        spread = table.get((title, "std"))
        if values:
            ticks = {}
            for of_group, (group, labels) in zip(sns.color_palette(PALETTE, len(groups)), groups.items(), strict=True):
                line_colour = colour if len(groups) == 1 else of_group
                on_axis = shown[[label for label in labels if label in values and label in shown]]
                x = [values[label] for label in on_axis.index]
                ticks |= dict(zip(x, on_axis.index if len(groups) == 1 else map("{:g}".format, x), strict=True))
                sns.lineplot(x=x, y=on_axis.to_numpy(), marker="o", color=line_colour, label=group or None, legend=False, ax=ax)
                if spread is not None:
                    ax.errorbar(x, on_axis, spread[on_axis.index], fmt="none", color=line_colour, capsize=3)
                for label in (label for label in labels if label in shown and label not in values):
                    ax.axhline(shown[label], color="0.4" if len(groups) == 1 else line_colour, linestyle="--", linewidth=1)
                    if len(groups) > 1:  # all of one kind: one line of the legend tells what
                        dashed = label.removeprefix(f"{group}, ")
                        continue
                    where = {"xycoords": ("axes fraction", "data"), "ha": "right", "va": "bottom", "fontsize": 7}
                    ax.annotate(label, (1, shown[label]), **where)
            ax.set_ylim(_percent_limits(shown, spread))
            if ablation.logarithmic:
                ax.set_xscale("log")
            if ablation.logarithmic or len(groups) > 1:
                ax.set_xticks(list(ticks), list(ticks.values()), fontsize=7)
                ax.minorticks_off()
            ax.set(xlabel=ablation.changes)
        else:
            sns.scatterplot(x=means.to_numpy(), y=range(len(table)), s=50, color=colour, ax=ax)
            if spread is not None:
                ax.errorbar(means, range(len(table)), xerr=spread, fmt="none", color=colour, capsize=3)
            ax.set_yticks(range(len(table)), table.index)
            ax.set(xlim=_percent_limits(shown, spread), ylim=(len(table) - 0.5, -0.5))
            ax.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4))
            ax.grid(axis="y", linewidth=0.5)
            ax.set(ylabel=ablation.changes if number == 0 else "", xlabel="%")
        ax.set_title(textwrap.fill(title if "%" in title else f"{title} (%)", 30))
    if values and len(groups) > 1:
        if dashed:
            axes[0, -1].plot([], [], color="0.4", linestyle="--", linewidth=1, label=dashed)
        axes[0, -1].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return fig


def _percent_limits(shown, spread):
    """Limits of an axis of percent: a point apart or more, so that differences that say nothing look small; little over 100."""
    around = 0 if spread is None else spread[shown.index].fillna(0)
    low, high = (shown - around).min(), (shown + around).max()
    margin = max(0.05 * (high - low), (1 - (high - low)) / 2)
    above = max(0, high + margin - 100 - 0.05 * (high - low + 2 * margin))
    return low - margin - above, high + margin - above


def cost_panels(table):
    """What methods cost: a panel each for the seconds of a fit, the milliseconds of an image and the size of the model.

    Parameters
    ----------
    table : DataFrame
        See `pradot.paper.ablations.ablation_table`; a line per method.

    Returns
    -------
    matplotlib Figure
        The axes are logarithmic.
    """
    titles = ("fit, s", "scoring, ms", "model, MB")
    fig, axes = plt.subplots(1, len(titles), figsize=(9.5, 1.0 + 0.3 * len(table)), sharey=True)
    for ax, title, colour in zip(axes, titles, sns.color_palette(PALETTE), strict=False):
        values = table[title, "this run"]
        bars = ax.barh([str(name) for name in table.index], values, height=0.6, color=colour)
        ax.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
        ax.set(xscale="log", xlabel=title, xlim=(values.min() / 2, 4 * values.max()))
    axes[0].invert_yaxis()
    return fig
