"""Heat maps of traces: a panel for each kind of part, tokens downwards, layers to the right."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from lightning_edit.messages import counted
from lightning_edit.tracing.average import GROUPS, AverageTrace
from lightning_edit.tracing.settings import Kind, TracingSettings
from lightning_edit.tracing.trace import Trace

# The colors of the paper's figures.
COLORS: dict[Kind, str] = {"state": "Purples", "mlp": "Greens", "attention": "Reds"}
TITLES: dict[Kind, str] = {"state": "hidden states", "mlp": "MLPs", "attention": "attentions"}
SMALL, NORMAL, DPI = 8, 9, 150
PANEL, ROW, LETTER, MARGIN = 3.3, 0.19, 0.065, 1.1
# Of what stands before the subject, where nothing can be restored.
SHOWN_BEFORE, LONGEST = 3, 24


def draw_trace(trace: Trace, settings: TracingSettings) -> Figure:
    """Draws the trace of one fact; an asterisk marks the tokens of the subject.

    Args:
        trace: The trace.
        settings: What it was made with.
    """
    first = max(0, trace.subject.start - SHOWN_BEFORE)
    names = [
        _shown(token) + ("*" if place in trace.subject else "")
        for place, token in enumerate(trace.tokens)
        if place >= first
    ]
    maps = {kind: restored[first:] for kind, restored in trace.restored.items()}
    title = f"p({_shown(trace.answer)}) after restoring one part of a run with a noisy subject"
    return _draw(names, maps, settings, title, f"p({_shown(trace.answer)})", trace.corrupted)


def draw_average(trace: AverageTrace, settings: TracingSettings) -> Figure:
    """Draws the average indirect effects of many facts, by groups of tokens.

    Args:
        trace: The average.
        settings: What the traces were made with.
    """
    present = [group for group, count in enumerate(trace.counts) if count]
    names = [GROUPS[group] for group in present]
    maps = {kind: effect.mean[present] for kind, effect in trace.effects.items()}
    return _draw(names, maps, settings, f"average indirect effect over {counted(trace.facts, 'fact')}", "effect", 0.0)


def _draw(
    names: Sequence[str], maps: dict[Kind, Tensor], settings: TracingSettings, title: str, unit: str, low: float
) -> Figure:
    labels = LETTER * max(map(len, names))
    size = (PANEL * len(maps) + labels, ROW * len(names) + MARGIN)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (kind, values) in zip(figure.subplots(1, len(maps), squeeze=False)[0], maps.items(), strict=True):
        shades = axes.pcolormesh(values.numpy(), cmap=COLORS[kind], vmin=low)
        bar = figure.colorbar(shades, ax=axes, aspect=12)
        bar.ax.set_title(unit, fontsize=SMALL, parse_math=False)
        bar.ax.tick_params(labelsize=SMALL)
        _label(axes, kind, settings.width(values.shape[1]), values.shape[1])
        axes.set_yticks([row + 0.5 for row in range(len(names))], names, fontsize=SMALL, parse_math=False)
        axes.invert_yaxis()
        if axes is not figure.axes[0]:
            axes.set_yticks([])
    figure.suptitle(title, fontsize=NORMAL, parse_math=False)
    return figure


def _label(axes: Axes, kind: Kind, width: int, depth: int) -> None:
    single = "restored layer"
    window = single if width == 1 else f"middle of {width} restored layers"
    axes.set_xlabel(f"{TITLES[kind]}: {single if kind == 'state' else window}", fontsize=SMALL)
    step = max(1, depth // 8)
    shown = range(0, depth, step)
    axes.set_xticks([layer + 0.5 for layer in shown], [str(layer) for layer in shown], fontsize=SMALL)


def _shown(text: str) -> str:
    """A text on one line, spaces at its ends left out, that fits beside a row."""
    line = " ".join(text.split()) or repr(text)[1:-1]
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}..."
