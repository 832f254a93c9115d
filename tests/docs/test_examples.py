"""Every example of the README and the documentation is run; what cannot run here is parsed."""

import shutil
import subprocess
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import pytest
import yaml

from lightning_edit.callbacks.measuring.downstream import TASKS
from lightning_edit.downstream import load_task
from lightning_edit.tiny import MODEL_PATH, World
from tests.data_files import write_world
from tests.docs import shell
from tests.docs.blocks import LANGUAGES, PAGES, REPOSITORY, blocks_of

NAMES = [str(page.relative_to(REPOSITORY)) for page in PAGES]
WITH_EXAMPLES = [
    name
    for name, page in zip(NAMES, PAGES, strict=True)
    if any(block.language in ("bash", "python") for block in blocks_of(page))
]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Where caches go, shared by all pages."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def folder(tmp_path, monkeypatch, home):
    """A working folder with the files that the examples speak of."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(home))
    shutil.copytree(MODEL_PATH, tmp_path / "my-model")
    write_world("own_edits", tmp_path, 8).rename(tmp_path / "edits.csv")
    write_world("counterfact", tmp_path, 8)
    (tmp_path / "ordinary_text.txt").write_text("\n".join(World.generate().sentences(0)))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_blocks_name_a_language_and_can_be_read(name):
    for block in blocks_of(REPOSITORY / name):
        assert block.language in LANGUAGES, f"{block.place}: a block needs one of {LANGUAGES}, has {block.language!r}"
        if block.language == "bash":
            shell.check_syntax(block.text)
        elif block.language == "python":
            compile(block.text, block.place, "exec")


@pytest.mark.slow
@pytest.mark.filterwarnings("default::UserWarning")
@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name, folder):
    variables = {"__name__": "__main__"}
    for block in blocks_of(REPOSITORY / name):
        if block.how == "not run" or block.language in ("text", "yaml"):
            continue
        if block.language == "bash":
            for arguments in shell.calls_of(block.text, folder):
                call = shell.run if block.how == "run" else shell.parse
                assert call(arguments) == 0, f"{block.place}: lightning-edit {' '.join(arguments)}"
        elif block.how == "run":
            _run_python(block, variables)


def _run_python(block, variables):
    printed = StringIO()
    # Line numbers of a traceback are those of the page.
    code = compile("\n" * (block.line - 1) + block.text, str(block.page), "exec")
    with redirect_stdout(printed):
        exec(code, variables)
    if block.output is not None:
        assert printed.getvalue().strip() == block.output.strip(), block.place


@pytest.mark.parametrize("name", NAMES)
def test_yaml_examples_are_accepted(name, folder):
    for block in blocks_of(REPOSITORY / name):
        if block.language != "yaml":
            continue
        content = yaml.safe_load(block.text)
        file = Path("example.yaml")
        file.write_text(block.text)
        if content.keys() & {"model", "trainer"} or (
            "data" in content and "prompt" not in content and "kind" not in content
        ):
            assert shell.parse(["fit", "--config", str(file)]) == 0, block.place
        else:
            assert load_task(str(file), TASKS).name == "example", block.place


def test_a_failing_example_fails(folder):
    with pytest.raises(subprocess.CalledProcessError):
        shell.calls_of("false\nlightning-edit fit", folder)
    assert shell.run(["fit", "--model.layers", "[99]"]) == 2
    assert shell.parse(["fit", "--model.no_such_setting", "1"]) == 2
    (call,) = shell.calls_of("srun --x=1 \\\n  lightning-edit fit --model.layers '[1, 2]'", folder)
    assert call == ["fit", "--model.layers", "[1, 2]"]
