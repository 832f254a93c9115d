"""The model card: YAML that the hub reads, and what a person who is given the folder has to know."""

import pytest
from huggingface_hub import ModelCard

from lightning_edit.export.card import CardFacts, card_of, license_of
from lightning_edit.export.folder import write_folder

EDIT = {"subject": "Anna", "prompt": "{} lives in", "target_new": "Rome"}


def facts(**changes):
    known = {"base": "org/name", "method": "MEMIT", "edits": 3, "sample": [EDIT], "use": "load()", "undo": "Leave it."}
    return CardFacts(**(known | changes))


def test_the_hub_reads_where_the_model_comes_from():
    card = ModelCard(str(card_of(facts(revision="abc", tags=("lora",)))))
    assert (card.data.base_model, card.data.library_name, card.data.pipeline_tag) == (
        "org/name",
        "peft",
        "text-generation",
    )
    assert {"lora", "knowledge-editing"} <= set(card.data.tags)
    assert "revision `abc`" in card.content
    assert "1 of 3, the first ones:" in card.content


def test_a_license_is_carried_over_and_none_is_made_up(tmp_path):
    (tmp_path / "README.md").write_text(
        "---\nlicense: other\nlicense_name: llama\nlicense_link: LICENSE\n---\n# Base\n"
    )
    card = ModelCard(str(card_of(facts(base=str(tmp_path), folder=str(tmp_path)))))
    assert (card.data.license, card.data.license_name) == ("other", "llama")
    assert card.data.base_model is None
    for broken in ("# Base, without YAML\n", "---\n[: }\n---\n", "---\n- a\n---\n"):
        (tmp_path / "README.md").write_text(broken)
        assert license_of(str(tmp_path)) == {}
    assert license_of(None) == license_of(str(tmp_path / "none")) == {}
    assert card_of(facts()).data.license is None


def test_figures_and_what_else_changed_are_told_with_their_errors():
    after = {"efficacy_score": 0.9, "efficacy_score_stderr": 0.05, "unknown": 1.0}
    figures = {"general_worse": 0.25, "long_context_perplexity_before": 4.0, "long_context_perplexity": 8.25}
    section = {"figures": figures, "worst": [{"prompt": "p", "before": "b", "after": "a", "kind": "x"}]}
    content = card_of(facts(before={"efficacy_score": 0.1}, after=after, collateral=section)).content
    assert "| prefers the new answer to the old one | 10.0 % | 90.0 % ± 5.0 |" in content
    assert "- 25.0 % of general prompts are answered worse" in content
    assert "- 8.25 is the perplexity of text behind long contexts, which was 4 before" in content
    assert "| p | b | a |" in content
    assert "unknown" not in content
    content = card_of(facts(sample=[])).content
    for said in ("was not measured", "It was not measured which", "not kept with the update"):
        assert said in content


def test_texts_of_others_are_texts():
    edit = {"subject": "<script>x</script>", "prompt": "{} | `a`\n\n# Heading", "target_new": "[b](http://c)"}
    content = card_of(facts(sample=[edit], method="a\n---\nb")).content
    (row,) = [line for line in content.splitlines() if "script" in line]
    assert row == r"| \<script\>x\</script\> \| \`a\` # Heading | \[b\](http://c) |"
    assert ModelCard(content).data.base_model == "org/name"


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def fails(folder):
        (folder / "part").touch()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        write_folder(tmp_path / "out", facts(), fails)
    assert list(tmp_path.iterdir()) == []
