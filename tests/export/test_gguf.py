"""The edited GGUF file: the logits of the edited model, and all else of the base file byte for byte."""

import resource
import shutil

import pytest
import torch
from huggingface_hub import ModelCard

from lightning_edit.cli import main as cli
from lightning_edit.loading.pretrained import load_model
from lightning_edit.updates.model_update import inserted

gguf = pytest.importorskip("gguf")

from lightning_edit.cli.exporting.words import TYPES  # noqa: E402
from lightning_edit.export import gguf_copy, gguf_types  # noqa: E402
from lightning_edit.export.card import license_of  # noqa: E402
from tests.gguf_files import MODELS, edit, write  # noqa: E402

IDS = torch.arange(3, 33).view(2, 15)
KINDS = gguf.GGMLQuantizationType


def command(*words):
    cli.main(["export", *map(str, words)])


def refused(capsys, *words):
    with pytest.raises(SystemExit):
        command(*words)
    return " ".join(capsys.readouterr().err.split())


def logits(model):
    with torch.no_grad():
        return model(IDS).logits


def raw(path):
    """The metadata of a GGUF file and its tensors, as they lie in it."""
    reader = gguf.GGUFReader(path)
    start = reader.tensors[0].field.offset
    tensors = {
        t.name: (t.tensor_type, bytes(reader.data[t.data_offset : t.data_offset + t.n_bytes])) for t in reader.tensors
    }
    return bytes(reader.data[:start]), tensors


@pytest.mark.parametrize("kind", [KINDS.Q8_0, KINDS.F16, KINDS.F32], ids=lambda kind: kind.name)
@pytest.mark.parametrize("made", MODELS)
def test_the_file_gives_the_logits_of_the_edited_model(made, kind, tmp_path):
    model, update, _ = edit(tmp_path, made, kind)
    command(tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    before, again = logits(model), logits(load_model(str(tmp_path / "out" / "model.gguf")))
    with inserted(model, update):
        edited = logits(model)
    change = float((edited - before).abs().max())
    assert change > 1e-3
    # float16 rounds the edited matrices; a base in float32 stays in that.
    assert float((again - edited).abs().max()) <= (1e-6 if kind is KINDS.F32 else change / 50)


@pytest.mark.parametrize("made", MODELS)
def test_all_but_the_edited_matrices_is_copied_byte_for_byte(made, tmp_path):
    _, _, base = edit(tmp_path, made)
    command(tmp_path / "update.safetensors", "--to", "gguf", "--gguf_type", "BF16", "--out", tmp_path / "out")
    (said, old), (says, new) = raw(base), raw(tmp_path / "out" / "model.gguf")
    assert says == said
    assert list(new) == list(old)
    changed = {name for name in old if old[name] != new[name]}
    part = "ffn_down_exps" if made == "qwen3moe" else "ffn_down"
    assert changed == {f"blk.{block}.{part}.weight" for block in (0, 1)}
    assert {new[name][0] for name in changed} == {KINDS.BF16}


def test_queries_and_keys_are_put_into_the_order_of_the_file(tmp_path):
    maps = [f"model.layers.1.self_attn.{part}_proj" for part in "qkvo"] + ["model.layers.0.mlp.up_proj"]
    model, update, base = edit(tmp_path, kind=KINDS.F32, modules=maps, size=0.5)
    command(tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    with inserted(model, update):
        edited = logits(model)
    torch.testing.assert_close(logits(load_model(str(tmp_path / "out" / "model.gguf"))), edited, rtol=0, atol=1e-6)
    new, old = raw(tmp_path / "out" / "model.gguf")[1], raw(base)[1]
    assert sum(old[name] != new[name] for name in old) == len(maps)


def test_the_card_says_how_it_is_loaded_and_what_rounding_did(tmp_path, capsys):
    edit(tmp_path)
    command(tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    assert "The edited GGUF file is" in capsys.readouterr().out.replace("\n", " ")
    card = ModelCard.load(tmp_path / "out" / "README.md")
    assert card.data.library_name == "gguf"
    assert card.data.license == "apache-2.0"
    assert "gguf" in card.data.tags
    for said in ("2 edited matrices in F16", "```bash\nllama-cli -m model.gguf", "## Undo", "5 edited facts"):
        assert said in card.content


def test_the_license_that_a_file_names_is_carried_into_cards_and_none_is_made_up(tmp_path):
    said = {"license": "other", "license_name": "llama3", "license_link": "https://example.org/license"}
    base = tmp_path / "base.gguf"
    write(base, **said)
    assert license_of(str(base)) == said
    for form in ("lora", "model", "gguf-lora"):
        edit(tmp_path)
        command(tmp_path / "update.safetensors", "--to", form, "--out", tmp_path / form)
        assert ModelCard.load(tmp_path / form / "README.md").data.license == "apache-2.0"
    write(base, license=None)
    assert license_of(str(base)) == {}
    base.write_bytes(base.read_bytes()[:100])
    assert license_of(str(base)) == {}


# -- types ------------------------------------------------------------------------------------------------------------


def test_every_type_that_gguf_can_write_is_offered():
    writable = set()
    for kind in KINDS:
        try:
            gguf.quantize(torch.ones(1, 256).numpy(), kind)
        except NotImplementedError:
            continue
        writable.add(kind.name)
    assert set(TYPES) == {"auto", *writable} == {"auto", *gguf_types.TYPES}


def test_the_figures_of_rounding_are_those_of_their_definition():
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 64, generator=generator)
    update = 0.1 * torch.randn(32, 64, generator=generator, dtype=torch.float64)
    one = gguf_types.round_to("x", weight, update, KINDS.F16, "Q4_0")
    found, target = torch.tensor(gguf.dequantize(one.data, KINDS.Q4_0)).double(), weight.double() + update
    assert one.error == pytest.approx(float((found - target).norm() / update.norm()), rel=1e-12)
    assert one.kept == pytest.approx(float(((found - weight) * update).sum() / update.square().sum()), rel=1e-12)
    assert torch.equal(one.matrix().double(), found)


@pytest.mark.parametrize(
    ("before", "size", "kind"), [("Q8_0", 0.1, "F16"), ("BF16", 1e-4, "F32"), ("F32", 0.1, "F32"), ("F16", 1e9, "F32")]
)
def test_the_type_is_as_fine_as_the_update_needs(before, size, kind):
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(32, 64, generator=generator)
    update = size * torch.randn(32, 64, generator=generator, dtype=torch.float64)
    one = gguf_types.round_to("x", weight, update, KINDS[before], "auto")
    assert one.kind is KINDS[kind]
    assert one.error < gguf_types.FINE
    gguf_types.check_rounded(one, 0.1)


def test_a_type_that_would_erase_the_edits_is_refused(tmp_path, capsys):
    edit(tmp_path, kind=KINDS.Q4_0, size=1e-3)
    words = (tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    said = refused(capsys, *words, "--gguf_type", "Q4_0")
    assert "would take the edits out again" in said
    assert "--to gguf-lora" in said
    assert "relative to the update" in refused(capsys, *words, "--gguf_type", "BF16", "--max_error", 0.5)
    assert not (tmp_path / "out").exists()
    command(*words, "--max_error", 0.5)


def test_what_float16_cannot_hold_is_refused_if_asked_for(tmp_path, capsys):
    edit(tmp_path, size=1e8)
    said = refused(
        capsys, tmp_path / "update.safetensors", "--to", "gguf", "--gguf_type", "F16", "--out", tmp_path / "o"
    )
    assert "numbers too large for it" in said


def test_rows_that_do_not_fit_the_blocks_of_a_type_are_refused(tmp_path, capsys):
    edit(tmp_path)
    said = refused(
        capsys, tmp_path / "update.safetensors", "--to", "gguf", "--gguf_type", "TQ2_0", "--out", tmp_path / "o"
    )
    assert "blocks of 256, and the rows of blk.0.ffn_down.weight have 128" in said


def test_edits_are_asked_again_where_rounding_is_coarse(tmp_path, capsys, caplog):
    edit(tmp_path, size=0.02)
    command(tmp_path / "update.safetensors", "--to", "gguf", "--gguf_type", "Q8_0", "--out", tmp_path / "out")
    assert "the rounded update still has was not measured" in capsys.readouterr().out.replace("\n", " ")
    assert "of what the update does" in caplog.text
    assert "not measured" in (tmp_path / "out" / "README.md").read_text()


# -- what is no base --------------------------------------------------------------------------------------------------


def test_a_base_that_is_a_folder_is_refused_before_it_is_loaded(finished, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lightning_edit.updates.files.saved.open_saved", None)
    said = refused(capsys, finished, "--to", "gguf", "--out", tmp_path / "out")
    for what in ("--to gguf-lora", "--to model", "convert_hf_to_gguf.py"):
        assert what in said
    assert not (tmp_path / "out").exists()


def test_another_file_is_refused(tmp_path, capsys):
    _, _, base = edit(tmp_path)
    words = (tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    write(tmp_path / "other.gguf", kind=KINDS.Q4_0)
    assert "holds other weights" in refused(capsys, *words, "--model", tmp_path / "other.gguf")
    shutil.copy(base, tmp_path / "cut.gguf")
    whole = base.read_bytes()
    for size in (len(whole) - 1000, 5000, 30):
        (tmp_path / "cut.gguf").write_bytes(whole[:size])
        assert "could be loaded from" in refused(capsys, *words, "--model", tmp_path / "cut.gguf")
    assert "there is no file" in refused(capsys, *words, "--model", tmp_path / "none.gguf")
    assert not (tmp_path / "out").exists()


def test_a_file_that_changed_while_it_was_loaded_is_refused(tmp_path, capsys, monkeypatch):
    edit(tmp_path)
    write(tmp_path / "other.gguf", kind=KINDS.Q4_0)
    monkeypatch.setattr("lightning_edit.cli.exporting.gguf.base_file", lambda name: tmp_path / "other.gguf")
    words = (tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    assert "holds other numbers than the model that was edited" in refused(capsys, *words)


# -- writing ----------------------------------------------------------------------------------------------------------


def test_a_full_disk_leaves_no_half_file(tmp_path, capsys):
    edit(tmp_path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
    try:
        said = refused(capsys, tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "File too large" in said
    assert {path.name for path in tmp_path.iterdir()} == {"base.gguf", "update.safetensors"}


def test_an_interrupt_leaves_no_half_file(tmp_path, monkeypatch):
    edit(tmp_path)
    whole, calls = gguf_copy._copy, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == 5:
            raise KeyboardInterrupt
        whole(*args)

    monkeypatch.setattr(gguf_copy, "_copy", interrupted)
    with pytest.raises(SystemExit):
        command(tmp_path / "update.safetensors", "--to", "gguf", "--out", tmp_path / "out")
    assert len(calls) == 5
    assert {path.name for path in tmp_path.iterdir()} == {"base.gguf", "update.safetensors"}


def test_an_older_export_is_not_written_over(tmp_path, capsys):
    _, _, base = edit(tmp_path)
    before = base.read_bytes()
    words = (tmp_path / "update.safetensors", "--to", "gguf")
    command(*words)
    assert (tmp_path / "export-gguf" / "model.gguf").is_file()
    assert "is there already" in refused(capsys, *words)
    assert base.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--to", "gguf", "--rank", 3], "`--rank` is for --to lora and --to gguf-lora"),
        (["--gguf_type", "F16"], "`--gguf_type` is for --to gguf"),
        (["--to", "gguf-lora", "--pad_rank", 8], "`--pad_rank` is for --to lora"),
        (["--to", "gguf", "--gguf_arch", "llama"], "`--gguf_arch` is for --to gguf-lora"),
        (["--to", "gguf", "--gguf_type", "Q6_K"], "invalid choice"),
    ],
)
def test_options_of_other_forms_are_refused(words, said, tmp_path, capsys):
    (tmp_path / "update.safetensors").touch()
    assert said in refused(capsys, tmp_path / "update.safetensors", *words)
