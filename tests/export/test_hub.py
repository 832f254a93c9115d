"""Uploads: huggingface_hub's own client talks to a real server, and the files arrive as they were written."""

import os
import re
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from lightning_edit.export.card import CardFacts, write_card
from tests.hub_server import FIRST, TOKEN, Repository, served

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@pytest.fixture
def hub():
    with served() as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    """A folder as `export` writes it."""
    made = tmp_path / "made"
    made.mkdir()
    save_file({"a": torch.ones(3)}, made / WEIGHTS)
    (made / CONFIG).write_text("{}")
    write_card(CardFacts(base="org/name", method="EMMET", edits=1), made)
    return made


def export(hub, *words, token=TOKEN, **more):
    """Runs the command in a process of its own, as the client reads its settings when it is imported."""
    # Xet, the other way of the client to send large files, talks to servers that there are only on the hub itself.
    own = {
        "HF_ENDPOINT": getattr(hub, "url", hub),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        **more,
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment = inherited | own | ({} if token is None else {"HF_TOKEN": token})
    command = [sys.executable, "-m", "lightning_edit.cli", "export", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, check=False)
    said = " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in said, done.stderr
    if token:
        assert token not in said
    return done.returncode, said


def held(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_a_run_is_exported_and_all_files_arrive(hub, finished, tmp_path):
    code, said = export(hub, finished, "--out", tmp_path / "lora", "--hub", "user/edits", "--private")
    assert code == 0, said
    repository = hub.repositories["user/edits"]
    assert repository.private
    assert repository.branches == {"main": FIRST | held(tmp_path / "lora")}
    assert {CONFIG, WEIGHTS, "README.md"} == held(tmp_path / "lora").keys()
    assert f"are on the hub in user/edits, private: {hub.url}/user/edits/commit/" in said
    assert "names the base model by a folder of this machine" in said
    # The token is nowhere on the disk.
    assert not any(TOKEN.encode() in content for content in held(tmp_path).values())


def test_a_folder_that_was_exported_is_uploaded_as_it_is_and_again(hub, folder):
    code, said = export(hub, folder, "--hub", "user/edits")
    assert code == 0, said
    assert "folder of this machine" not in said
    repository = hub.repositories["user/edits"]
    assert not repository.private
    assert repository.branches["main"] == FIRST | held(folder)
    save_file({"a": torch.zeros(3)}, folder / WEIGHTS)
    code, said = export(hub, folder, "--hub", "user/edits", "--revision", "second")
    assert code == 0, said
    assert repository.branches["second"] == FIRST | held(folder)
    assert repository.branches["main"] != repository.branches["second"]


def test_a_dry_run_lists_files_and_sizes_and_asks_nobody(hub, folder):
    code, said = export(hub, folder, "--hub", "user/edits", "--dry_run", "--revision", "b", token=None)
    assert code == 0
    for name, content in held(folder).items():
        assert f"{name} {len(content)} bytes" in said
    assert "3 files" in said
    assert "would be uploaded to user/edits, branch b. Nothing was." in said
    assert (hub.requests, hub.repositories) == ([], {})


def test_a_token_is_needed_and_never_shown(hub, folder, finished, tmp_path):
    code, said = export(hub, finished, "--out", tmp_path / "o", "--hub", "user/edits", token=None)
    assert (code, hub.requests) == (2, [])
    assert "in the environment variable HF_TOKEN" in said
    code, said = export(hub, finished, "--out", tmp_path / "o", "--hub", "user/edits", token="hf_wrong")
    assert code == 2
    assert "does not know the token in HF_TOKEN" in said
    # It was refused before anything was exported.
    assert not (tmp_path / "o").exists()
    code, said = export(hub, folder, "--hub", "user/edits", token="hf_a b")
    assert "characters that no token has" in said
    assert hub.repositories == {}


def test_a_token_in_a_file_is_not_taken(hub, folder, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)
    code, said = export(hub, folder, "--hub", "user/edits", token=None, HF_HOME=str(tmp_path / "home"))
    assert code == 2
    assert "HF_TOKEN" in said
    assert hub.repositories == {}


def test_what_others_put_into_a_repository_is_left_alone(hub, folder):
    foreign = FIRST | {"model.safetensors": b"theirs"}
    hub.repositories["user/model"] = Repository({"main": dict(foreign)})
    code, said = export(hub, folder, "--hub", "user/model")
    assert code == 2
    assert "holds model.safetensors, and nothing that lightning-edit wrote" in said
    assert hub.repositories["user/model"].branches == {"main": foreign}
    other = FIRST | {"README.md": (folder / "README.md").read_bytes(), "model.gguf": b"ours, of another form"}
    hub.repositories["user/other"] = Repository({"main": dict(other)})
    code, said = export(hub, folder, "--hub", "user/other")
    assert code == 2
    assert "holds model.gguf of another export" in said
    assert f"lightning-edit export {folder} --hub user/other" in said
    assert hub.repositories["user/other"].branches == {"main": other}


def test_a_public_repository_is_not_taken_for_a_private_export(hub, folder):
    hub.repositories["user/edits"] = Repository()
    code, said = export(hub, folder, "--hub", "user/edits", "--private")
    assert code == 2
    assert "is there and public" in said
    assert hub.repositories["user/edits"].branches == {"main": FIRST}


def test_a_name_space_of_others_is_refused(hub, folder):
    code, said = export(hub, folder, "--hub", "others/edits")
    assert code == 2
    assert "may not write to others/edits. Give it write access for others" in said


@pytest.mark.parametrize(
    ("place", "status", "expected"),
    [
        ("POST /api/models/user/edits/commit", 412, "was changed on the hub meanwhile"),
        ("POST /api/models/user/edits/commit", 400, "The hub answered 400"),
        ("PUT /lfs", 403, "may not write to user/edits"),
    ],
)
def test_an_upload_that_fails_loses_nothing(hub, finished, tmp_path, place, status, expected):
    hub.fails[place] = (status, "no")
    code, said = export(hub, finished, "--out", tmp_path / "lora", "--hub", "user/edits")
    assert code == 2
    assert expected in said
    again = re.search(r"upload it by `lightning-edit (export \S+ --hub \S+)`", said)[1].split()
    assert {CONFIG, WEIGHTS, "README.md"} == held(tmp_path / "lora").keys()
    assert hub.repositories["user/edits"].branches == {"main": FIRST}
    hub.fails.clear()
    assert export(hub, *again[1:])[0] == 0
    assert hub.repositories["user/edits"].branches["main"] == FIRST | held(tmp_path / "lora")


def test_a_hub_that_cannot_be_reached_is_said(folder):
    code, said = export("http://127.0.0.1:9", folder, "--hub", "user/edits")
    assert code == 2
    assert "The hub could not be reached at http://127.0.0.1:9" in said
    code, said = export("http://127.0.0.1:9", folder, "--hub", "user/edits", HF_HUB_OFFLINE="1")
    assert code == 2
    assert "HF_HUB_OFFLINE" in said


def test_what_cannot_be_uploaded_is_refused(hub, folder, tmp_path):
    for name, expected in (("edits", "give the owner as well: USER/edits"), ("a/b/c", "is no name of a repository")):
        code, said = export(hub, folder, "--hub", name)
        assert (code, expected in said) == (2, True), said
    assert "Give --hub USER/NAME as well" in export(hub, folder, "--private")[1]
    assert "what `export` has written" in export(hub, folder)[1]
    (folder / "link").symlink_to(tmp_path)
    assert "is a link or no ordinary file" in export(hub, folder, "--hub", "user/edits")[1]
    assert hub.repositories == {}
