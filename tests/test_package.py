"""What is installed: one package, whose command runs from any folder."""

import json
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import lightning_edit
from lightning_edit.cli import main as cli
from lightning_edit.version import own_version
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "lightning_edit", "callbacks", "datamodules", "configs")


def folders():
    """For each package its folder in the repository."""
    mapped = PROJECT["tool"]["setuptools"]["package-dir"]
    rooms = {
        (name, *path.parent.relative_to(ROOT / folder).parts): path.parent
        for name, folder in mapped.items()
        for path in sorted((ROOT / folder).rglob("__init__.py"))
    }
    return {".".join(names): folder for names, folder in rooms.items()}


def quietly(*command, **options):
    ended = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    assert not ended.returncode, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy, so that neither is anything left in the repository nor an older build taken up."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        source, copy = ROOT / name, folder / "source" / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copytree(source, copy) if source.is_dir() else shutil.copy2(source, copy)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    quietly(*pip, "--wheel-dir", folder, folder / "source")
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A bare environment with the wheel in it; what that depends on is borrowed from the tests' own environment."""
    folder = tmp_path_factory.mktemp("environment")
    quietly(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    quietly(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel)
    [packages] = folder.glob("lib/python*/site-packages")
    borrowed = [path for path in sys.path if path.endswith("site-packages")]
    # The .pth files in there are not read, so that the tests' own installation of this project is not in the way.
    (packages / "borrowed.pth").write_text("\n".join(borrowed) + "\n")
    return folder


def test_all_folders_are_packages_and_all_packages_are_folders():
    assert sorted(PROJECT["tool"]["setuptools"]["packages"]) == sorted(folders())


@pytest.mark.slow
def test_the_wheel_holds_every_module_configuration_probe_and_the_embedded_model(wheel):
    kinds = (".py", ".yaml", ".json", ".jsonl", ".safetensors")
    expected = set()
    for name, folder in folders().items():
        for path in folder.rglob("*"):
            if path.suffix in kinds:
                expected.add("/".join([*name.split("."), *path.relative_to(folder).parts]))
    assert expected <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.slow
def test_one_package_is_installed(environment):
    [packages] = environment.glob("lib/python*/site-packages")
    installed = {path.name for path in packages.iterdir()} - {"borrowed.pth"}
    assert installed == {"lightning_edit", f"lightning_edit-{PROJECT['project']['version']}.dist-info"}


@pytest.mark.slow
def test_the_installed_command_edits_from_another_folder(environment, tmp_path):
    small = ("--data.edits=1", "--model.values.steps=3", "--model.second_moment.tokens=4000")
    small += (f"--model.second_moment.cache_dir={tmp_path / 'cache'}", "--config", "configs/solvers/memit.yaml")
    quietly(environment / "bin" / "lightning-edit", "fit", *small, cwd=tmp_path)
    metrics = json.loads((tmp_path / "runs" / "version_0" / "metrics.json").read_text())
    assert metrics["edits"] == 1
    assert metrics["config"]["model"]["solver"]["class_path"].endswith("MEMIT")


@pytest.mark.slow
def test_every_package_is_imported_from_where_it_was_installed(environment, tmp_path):
    names = ", ".join(map(repr, folders()))
    ask = f"from importlib.util import find_spec; print(*(find_spec(name).origin for name in ({names})))"
    shown = quietly(environment / "bin" / "python", "-c", ask, cwd=tmp_path)
    assert all(Path(path).is_relative_to(environment) for path in shown.split())


@pytest.mark.slow
def test_the_version_is_that_of_the_installed_package(environment, tmp_path, capsys):
    version = PROJECT["project"]["version"]
    shown = quietly(environment / "bin" / "lightning-edit", "--version", cwd=tmp_path)
    assert shown == f"lightning-edit {version}\n"
    assert lightning_edit.__version__ == metadata.version("lightning-edit") == version
    cli.main(["--version"])
    assert capsys.readouterr().out == shown


def test_every_public_name_can_be_used():
    assert all(getattr(lightning_edit, name) is not None for name in lightning_edit.__all__)
    assert set(lightning_edit.__all__) <= set(dir(lightning_edit))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = lightning_edit.nothing


def test_python_started_in_a_clone_uses_the_clone(environment):
    ask = "from importlib.util import find_spec; print(*(find_spec('lightning_edit.' + name).origin for name in {}))"
    names = ("callbacks", "configs", "solvers")
    shown = quietly(environment / "bin" / "python", "-c", ask.format(names), cwd=ROOT)
    folders = (ROOT / "callbacks", ROOT / "configs", ROOT / "lightning_edit" / "solvers")
    assert shown.split() == [str(folder / "__init__.py") for folder in folders]


def test_a_clone_that_is_not_installed_says_so(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr("lightning_edit.version.metadata.version", missing)
    assert own_version() == "not installed"
