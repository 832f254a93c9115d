"""Draws the rooms of the library and who imports whom, from the import statements themselves, as one SVG."""

import ast
import itertools
import sys
from collections import Counter
from html import escape
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
PACKAGE = "lightning_edit"
# Files that everybody imports count as one room.
WORDS = ("errors", "messages", "old_names", "progress", "requests", "settings")
WORDS_ROOM = "errors, settings, ..."
# Folders of the repository that are installed inside the package.
BESIDE = ("callbacks", "datamodules", "configs")
WIDTH, BOX_WIDTH, BOX_HEIGHT, GAP, MARGIN = 980, 200, 50, 56, 24
STYLE = """
  .box { fill: #eef0fb; stroke: #4051b5; stroke-width: 1.5 }
  .name { font: 600 15px sans-serif; fill: #222; text-anchor: middle }
  .size { font: 12px sans-serif; fill: #555; text-anchor: middle }
  .arrow { fill: none; stroke: #7a84c7; stroke-width: 1.4; marker-end: url(#tip) }
  .wrong { stroke: #c62828; stroke-dasharray: 5 3 }
  .tip { fill: #7a84c7 }
"""


def files_of(repository: Path) -> dict[str, list[Path]]:
    """The files of each room: a folder of the library is a room, and so is each file beside those folders."""
    rooms: dict[str, list[Path]] = {}
    library = repository / PACKAGE
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).parts
        if parts != ("__init__.py",):
            rooms.setdefault(_room(parts[0].removesuffix(".py")), []).append(path)
    for name in BESIDE:
        if found := sorted((repository / name).rglob("*.py")):
            rooms[name] = found
    rooms["cli"] = [*rooms.pop("cli", []), repository / "cli.py"]
    return rooms


def _room(name: str) -> str:
    return WORDS_ROOM if name in WORDS else name


def imported_rooms(path: Path, rooms: dict[str, list[Path]], public: dict[str, str]) -> list[str]:
    """The room of each import of a file, also of those inside functions."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            first, _, rest = name.partition(".")
            room = rest.partition(".")[0] if first == PACKAGE else first
            room = _room(public.get(room, room))
            if room in rooms and (first == PACKAGE or first in BESIDE):
                found.append(room)
    return found


def public_names(repository: Path) -> dict[str, str]:
    """For each name that the package itself offers the room that it comes from."""
    tree = ast.parse((repository / PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    return {
        alias.name: node.module.split(".")[1]
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{PACKAGE}.")
        for alias in node.names
    }


def arrows_of(repository: Path) -> Counter[tuple[str, str]]:
    """How many imports go from one room to another."""
    rooms, public = files_of(repository), public_names(repository)
    arrows: Counter[tuple[str, str]] = Counter()
    for room, files in rooms.items():
        for path in files:
            arrows.update((room, other) for other in imported_rooms(path, rooms, public) if other != room)
    return arrows


def circle_in(arrows: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows of one circle; empty if there is none."""
    below: dict[str, list[str]] = {}
    for start, end in arrows:
        below.setdefault(start, []).append(end)
    done: set[str] = set()

    def follow(room: str, path: list[str]) -> list[str]:
        if room in path:
            return [*path[path.index(room) :], room]
        if room not in done:
            for other in below.get(room, ()):
                if found := follow(other, [*path, room]):
                    return found
            done.add(room)
        return []

    for room in below:
        if path := follow(room, []):
            return list(itertools.pairwise(path))
    return []


def split_circles(arrows: Counter[tuple[str, str]]) -> tuple[Counter[tuple[str, str]], list[tuple[str, str]]]:
    """The arrows without circles, and those that were taken out for it: of each circle the one of fewest imports."""
    kept, upward = arrows.copy(), []
    while circle := circle_in(kept):
        wrong = min(circle, key=lambda arrow: kept[arrow])
        upward.append(wrong)
        del kept[wrong]
    return kept, upward


def floors_of(rooms: list[str], arrows: Counter[tuple[str, str]]) -> dict[str, int]:
    """The floor of each room: one above the highest that it imports; there must be no circle."""
    floors: dict[str, int] = {}

    def floor(room: str) -> int:
        if room not in floors:
            floors[room] = max((floor(b) + 1 for a, b in arrows if a == room), default=0)
        return floors[room]

    for room in rooms:
        floor(room)
    return floors


def without_shortcuts(arrows: Counter[tuple[str, str]]) -> list[tuple[str, str]]:
    """The arrows that no path over other rooms replaces."""
    below: dict[str, set[str]] = {}
    for start, end in arrows:
        below.setdefault(start, set()).add(end)

    def reaches(start: str, end: str) -> bool:
        return end in below.get(start, ()) or any(reaches(room, end) for room in below.get(start, ()))

    return [
        (start, end) for start, end in arrows if not any(reaches(room, end) for room in below[start] if room != end)
    ]


def places_of(floors: dict[str, int], arrows: list[tuple[str, str]]) -> dict[str, tuple[float, float]]:
    """The center of each room; rooms of a floor stand where the rooms that they import are, in the mean."""
    highest, places = max(floors.values()), {}
    for number in range(highest + 1):
        names = [room for room in floors if floors[room] == number]
        wanted = {room: [places[b][0] for a, b in arrows if a == room and b in places] for room in names}
        names.sort(key=lambda room: (sum(wanted[room]) / len(wanted[room]) if wanted[room] else WIDTH / 2, room))
        step = WIDTH / len(names)
        y = MARGIN + BOX_HEIGHT / 2 + (highest - number) * (BOX_HEIGHT + GAP)
        places |= {room: (step * (i + 0.5), y) for i, room in enumerate(names)}
    return places


def draw(repository: Path) -> str:
    """The figure as the text of an SVG file.

    Args:
        repository: The folder with the library.
    """
    rooms, arrows = files_of(repository), arrows_of(repository)
    rooms = {room: files for room, files in rooms.items() if any(room in arrow for arrow in arrows)}
    downward, upward = split_circles(arrows)
    floors, shown = floors_of(list(rooms), downward), without_shortcuts(downward)
    places = places_of(floors, shown)
    height = 2 * MARGIN + (max(floors.values()) + 1) * (BOX_HEIGHT + GAP) - GAP
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">',
        "<title>Rooms of the library and their imports</title>",
        f"<style>{STYLE}</style>",
        '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path class="tip" d="M0 0 L8 4 L0 8 z"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for start, end in [*shown, *upward]:
        (x1, y1), (x2, y2) = places[start], places[end]
        side = -1 if (start, end) in upward else 1
        y1, y2 = y1 + side * BOX_HEIGHT / 2, y2 - side * BOX_HEIGHT / 2
        bend = (y2 - y1) / 2
        style = "arrow" if side > 0 else "arrow wrong"
        curve = f"M{x1:.0f} {y1:.0f} C{x1:.0f} {y1 + bend:.0f} {x2:.0f} {y2 - bend:.0f} {x2:.0f} {y2:.0f}"
        meaning = f"{start} imports {end} {arrows[start, end]} times"
        lines.append(f'<path class="{style}" d="{curve}"><title>{meaning}</title></path>')
    for room, (x, y) in places.items():
        files = rooms[room]
        size = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        count = f"{len(files)} file{'s' if len(files) > 1 else ''}, {size:,} lines"
        left, top = x - BOX_WIDTH / 2, y - BOX_HEIGHT / 2
        width = min(BOX_WIDTH, WIDTH / sum(floors[room] == floor for floor in floors.values()) - 8)
        left = x - width / 2
        lines += [
            f'<rect class="box" x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{BOX_HEIGHT}" rx="6"/>',
            f'<text class="name" x="{x:.0f}" y="{y - 3:.0f}">{escape(room)}</text>',
            f'<text class="size" x="{x:.0f}" y="{y + 15:.0f}">{count}</text>',
        ]
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(draw(REPOSITORY), encoding="utf-8")
