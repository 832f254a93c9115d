"""Reading a GGUF file once: transformers reads it anew for the configuration, the tokenizer and the weights.

For each module of a model it also makes anew the table of what tensors are called in such a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning_edit.loading.gguf_file import is_gguf


@contextmanager
def read_once(name: str) -> Iterator[None]:
    """While it lasts, a GGUF file is read once however often it is opened; what is read of it is not changed.

    Going through the fields of a file, one for each token of the vocabulary, takes some seconds; so do the tables of
    tensors' names, of which a single one is made.

    Args:
        name: The model, see `resolve`; other forms are left alone.
    """
    # Where the package is missing, what loads the model says so.
    if not is_gguf(Path(name)) or find_spec("gguf") is None:
        yield
        return
    import gguf

    readers, reader_of, names_of = dict[str, Any](), gguf.GGUFReader, gguf.get_tensor_name_map

    def reader(path: Any, mode: Any = "r") -> Any:
        key = str(path)
        if mode != "r":
            return reader_of(path, mode)
        if key not in readers:
            readers[key] = reader_of(path, mode)
        return readers[key]

    package: Any = gguf
    package.GGUFReader, package.get_tensor_name_map = reader, cache(names_of)
    try:
        yield
    finally:
        package.GGUFReader, package.get_tensor_name_map = reader_of, names_of
