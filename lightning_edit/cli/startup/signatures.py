"""What a class is made from, read from its source: to import the class would take the seconds that torch needs."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "lightning_edit"


@dataclass(frozen=True)
class Source:
    """A class of this package.

    Args:
        module: The module that defines it.
        node: Its definition.
    """

    module: "Module"
    node: ast.ClassDef

    def arguments(self) -> dict[str, str]:
        """The names of its arguments, those that it passes on to its parents included, and their annotations."""
        annotations: dict[str, str] = {}
        if any("dataclass" in ast.unparse(decorator) for decorator in self.node.decorator_list):
            fields = [line for line in self.node.body if isinstance(line, ast.AnnAssign)]
            annotations = {ast.unparse(line.target): ast.unparse(line.annotation) for line in fields}
            return {
                name: _bare(kind) for name, kind in annotations.items() if "ClassVar" not in kind
            } | self._of_parents()
        made = next((line for line in self.node.body if getattr(line, "name", "") == "__init__"), None)
        if isinstance(made, ast.FunctionDef):
            given = [*made.args.args[1:], *made.args.kwonlyargs]
            annotations = {one.arg: _bare(ast.unparse(one.annotation)) if one.annotation else "" for one in given}
            if made.args.kwarg is None:
                return annotations
        return self._of_parents() | annotations

    @property
    def is_abstract(self) -> bool:
        """Whether others must stand in its place."""
        return bool(self._methods()[1])

    def is_made_of(self, base: "Source") -> bool:
        """Whether it is of a kind, and no other class must stand in its place.

        Args:
            base: The kind.
        """
        return base.node.name in self.ancestors() and not self.is_abstract

    def _methods(self) -> tuple[set[str], set[str]]:
        """The methods that can be called, and those that are still abstract."""
        made: set[str] = set()
        left: set[str] = set()
        for parent in self._parents():
            made, left = (mine | theirs for mine, theirs in zip((made, left), parent._methods(), strict=True))
        # One parent may make what another leaves open.
        left -= made
        for line in self.node.body:
            if isinstance(line, ast.FunctionDef):
                abstract = any("abstractmethod" in ast.unparse(decorator) for decorator in line.decorator_list)
                (left if abstract else made).add(line.name)
                (made if abstract else left).discard(line.name)
        return made, left

    def ancestors(self) -> Iterator[str]:
        """The names of its parents in this package, and of theirs."""
        for parent in self._parents():
            yield parent.node.name
            yield from parent.ancestors()

    def _parents(self) -> Iterator["Source"]:
        for base in self.node.bases:
            parent = self.module.find(ast.unparse(base))
            if parent is not None:
                yield parent

    def _of_parents(self) -> dict[str, str]:
        return {name: kind for parent in self._parents() for name, kind in parent.arguments().items()}


class Module:
    """A module of this package, read and not run.

    Args:
        name: Its dotted name.
    """

    def __init__(self, name: str) -> None:
        self.name = name

    @cached_property
    def tree(self) -> ast.Module:
        """Its source."""
        return ast.parse(self._file().read_text(encoding="utf-8"))

    def find(self, name: str) -> Source | None:
        """The class that a name stands for in this module; None if it is no class of this package.

        Args:
            name: The name of a class, defined there or imported from elsewhere in the package.
        """
        for line in self._lines():
            if isinstance(line, ast.ClassDef) and line.name == name:
                return Source(self, line)
            if isinstance(line, ast.ImportFrom) and (line.module or "").startswith(PACKAGE):
                for alias in line.names:
                    if (alias.asname or alias.name) == name:
                        return Module(line.module or "").find(alias.name)
        return None

    def imported(self) -> Iterator[tuple[str, str]]:
        """The modules of this package, and what is imported from each."""
        for line in self._lines():
            if isinstance(line, ast.ImportFrom) and (line.module or "").startswith(PACKAGE):
                yield from ((line.module or "", alias.name) for alias in line.names)

    def _lines(self) -> Iterator[ast.stmt]:
        for line in self.tree.body:
            # `if TYPE_CHECKING:` is where a lazy package imports its names.
            yield from line.body if isinstance(line, ast.If) else [line]

    def _file(self) -> Path:
        parent, _, last = self.name.rpartition(".")
        folder = _folder(self.name) or _folder(parent)
        assert folder is not None
        return folder / ("__init__.py" if _folder(self.name) else f"{last}.py")


def kinds_of(base: Source) -> Iterator[Source]:
    """The classes that can be made of a kind: those in the room of the kind's own module, then public ones of others.

    Args:
        base: The kind.
    """
    room = base.module.name.rpartition(".")[0]
    folder = _folder(room)
    assert folder is not None
    for file in sorted(folder.rglob("*.py")):
        place = file.parent if file.stem == "__init__" else file.with_suffix("")
        module = Module(".".join((room, *place.relative_to(folder).parts)))
        for line in module.tree.body:
            source = Source(module, line) if isinstance(line, ast.ClassDef) else None
            if source is not None and source.is_made_of(base):
                yield source
    for module_name, name in Module(PACKAGE).imported():
        if not f"{module_name}.".startswith(f"{room}."):
            public = Module(module_name).find(name)
            if public is not None and public.is_made_of(base):
                yield public


def _bare(annotation: str) -> str:
    """An annotation without what ``Annotated`` adds to it."""
    inner = annotation.removeprefix("Annotated[")
    return annotation if inner == annotation else inner.partition(",")[0]


def _folder(package: str) -> Path | None:
    """Where a room of the package is, or a folder in one; None if the name is that of a module."""
    parent, _, last = package.rpartition(".")
    if "." in parent:
        room = _folder(parent)
        return room / last if room is not None and (room / last).is_dir() else None
    # The specification of a package is found without running it; that of what is in it is not.
    spec = find_spec(package)
    places = spec.submodule_search_locations if spec is not None else None
    return Path(next(iter(places))) if places else None
