"""The page of real runs: whole, readable by everyone, without anything from elsewhere, and true to the run's files."""

import json
import re
import shutil
from itertools import pairwise

import pytest

from lightning_edit.cli import main as cli
from lightning_edit.commands.comparison.methods import PUBLISHED
from lightning_edit.configs import CONFIGS
from lightning_edit.updates.undo import change_updates
from tests import shared_runs
from tests.report.pages import Page, contrast, schemes

HOSTILE = '<script>alert("x")</script><img src=x onerror=alert(1)>\u202egnp\u2066 & {{ 7 * 7 }} "\' $x^2$'


def report(*runs, output):
    cli.main(["report", *(str(run) for run in runs), "--output", str(output)])
    return Page(output.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A run that measured what else changed, its own perplexity, and facts that it kept."""
    folder = tmp_path_factory.mktemp("measured")
    (folder / "text.txt").write_text("The pet of Dorhul is a cat. The river is long. " * 120)
    changes = {"collateral.prompts": 20, "collateral.every_n_updates": 1, "watch.every_n_updates": 1}
    return shared_runs.command(folder, f"--watch.perplexity_file={folder / 'text.txt'}", **changes)


@pytest.fixture(scope="module", params=["finished", "measured", "both"])
def page(request, tmp_path_factory, finished, measured):
    runs = {"finished": [finished], "measured": [measured], "both": [finished, measured]}[request.param]
    return report(*runs, output=tmp_path_factory.mktemp("page") / "out.html")


# -- a page that everybody can read ------------------------------------------------------------------------------------


def test_the_page_has_landmarks_and_says_its_language(page):
    assert page.source.startswith("<!DOCTYPE html>")
    [html] = page.all("html")
    assert html["lang"] == "en"
    for tag in ("header", "main", "footer", "nav", "h1", "title"):
        assert len(page.all(tag)) == 1, tag
    assert page.all("title")[0].text == page.all("h1")[0].text
    assert {"charset": "utf-8"} in [one.attributes for one in page.all("meta")]
    assert "width=device-width" in page.source


def test_headings_come_in_order_and_name_their_sections(page):
    levels = [int(one.tag[1]) for one in page.all() if re.fullmatch("h[1-6]", one.tag)]
    assert levels[0] == 1
    assert all(later <= earlier + 1 for earlier, later in pairwise(levels))
    headings = {one["id"] for one in page.all() if re.fullmatch("h[1-6]", one.tag)}
    sections = page.all("section")
    assert len(sections) >= 6
    assert all(one["aria-labelledby"] in headings for one in sections)


def test_ids_are_unique_and_links_lead_somewhere_on_the_page(page):
    ids = [one["id"] for one in page.all() if one["id"] is not None]
    assert len(set(ids)) == len(ids)
    links = [one["href"] for one in page.all() if one["href"] is not None]
    assert len(links) > 6
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    used = re.findall(r"url\(#([^)]+)\)", page.source)
    assert set(used) <= set(ids)


def test_nothing_comes_from_elsewhere_and_nothing_runs(page):
    assert not re.search(r"https?:|//[a-z]|@import|javascript:|data:|<\?xml|<!ENTITY", page.source)
    tags = {one.tag for one in page.all()}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "form", "base", "image", "foreignobject"}
    names = {name for one in page.all() for name in one.attributes}
    assert not {name for name in names if name.startswith("on")} | names & {"src", "srcset", "xmlns"}
    assert "default-src 'none'" in page.source
    assert len(page.all("style")) == 1, "those of figures would change the whole page"


def test_every_picture_says_what_it_shows(page):
    pictures = page.all("svg")
    assert pictures
    for one in pictures:
        assert one["role"] == "img"
        assert len(one["aria-label"]) > 20
        assert one["viewbox"]
        assert one.parent.tag == "figure"
        assert [child.text for child in one.parent.all("figcaption") if child.text]
        assert not list(one.all("metadata"))


def test_pictures_have_the_colors_and_the_font_of_the_page(page):
    for picture in page.all("svg"):
        styles = " ".join(one["style"] or "" for one in picture.all())
        assert not re.search("#[0-9a-fA-F]{3}|font-family|DejaVu", styles)
        assert not [one for one in picture.all() if one["fill"] or one["stroke"]]
        texts = list(picture.all("text"))
        assert texts
        sizes = [float(re.search(r"font-size: ([\d.]+)px", one["style"])[1]) for one in texts]
        width = float(picture["viewbox"].split()[2])
        # On a phone of 390 pixels the picture is some 320 wide.
        assert min(sizes) * 320 / width >= 11


def test_tables_have_captions_and_their_headings_a_scope(page):
    for one in page.all("table"):
        assert [caption.text for caption in one.all("caption")] != [""]
        assert len(list(one.all("caption"))) == 1
        assert all(head["scope"] in ("col", "row", "rowgroup") for head in one.all("th"))


@pytest.mark.parametrize("scheme", ["light", "dark", "print"])
def test_colors_have_contrast(page, scheme):
    [style] = page.all("style")
    colors = schemes(style.text)[scheme]
    assert len(colors) == 20
    for surface in ("page", "surface"):
        for name in ("text", "soft", "accent", *(f"series-{number}" for number in range(1, 8))):
            assert contrast(colors[name], colors[surface]) >= 4.5, (name, surface)
    for name, surface in (("good", "good-surface"), ("bad", "bad-surface"), ("note", "note-surface")):
        assert contrast(colors[name], colors[surface]) >= 4.5, name
    used = set(re.findall(r"var\(--([a-z0-9-]+)\)", page.source))
    assert used <= colors.keys()


# -- what it says is what the run's files say --------------------------------------------------------------------------


def test_the_figures_are_those_of_the_run(finished, tmp_path):
    page = report(finished, output=tmp_path / "out.html")
    after = json.loads((finished / "metrics.json").read_text())["after"]
    rows = {row.text for row in page.section("The figures").all("tr")}
    for name in ("generated_match", "efficacy_score", "paraphrase_score", "neighborhood_accuracy", "S"):
        [row] = [row for row in rows if f" {name} " in row]
        assert f"{100 * after[name]:.1f} %" in row
        assert f"± {100 * after[f'{name}_stderr']:.1f}" in row
    assert (
        "6 facts in the language model tiny were changed in 3 steps with the method EMMET" in page.all("main")[0].text
    )


def test_the_examples_are_all_facts_of_a_small_run_with_its_own_answers(finished, tmp_path):
    page = report(finished, output=tmp_path / "out.html")
    lines = [json.loads(line) for line in (finished / "records.jsonl").read_text().splitlines()]
    after = [line for line in lines if line["stage"] == "after"]
    [table] = page.section("Examples, before and after").all("table")
    rows = list(table.all("tr"))[1:]
    assert len(rows) == len(after) == 6
    for line in after:
        question = line["prompt"].replace("{}", line["subject"])
        [row] = [row for row in rows if row.text.startswith(question)]
        assert ("does not say it" in row.text) == (not line["generated_match"])
        assert [mark.text for mark in row.all("mark")] == [line["target_new"]] * line["generated_match"]
    failed = ["does not say it" in row.text for row in rows]
    assert failed == sorted(failed, reverse=True)


def test_what_got_worse_is_listed_by_name(measured, tmp_path):
    page = report(measured, output=tmp_path / "out.html")
    section = json.loads((measured / "metrics.json").read_text())["collateral"]
    text = page.section("What got worse").text
    assert section["worst"]
    for line in section["worst"]:
        assert " ".join(line["prompt"].split()) in text
    assert "own text: perplexity" in text
    behind = text.partition("behind long contexts: perplexity")[2]
    assert f"{section['figures']['long_context_perplexity']:.4g}" in behind
    asked = {kind: number for kind, number in section["asked"].items() if kind != "reworded"}
    worse = ("general_worse", "old_object_lost", "other_subjects_worse", "same_subject_worse")
    expected = sum(round(section["figures"][name] * asked[kind]) for kind, name in zip(asked, worse, strict=True))
    assert f"{expected} of {sum(asked.values())} other answers got worse" in page.all("main")[0].text


def test_curves_are_drawn_where_there_are_three_points(measured, tmp_path):
    page = report(measured, output=tmp_path / "out.html")
    labels = [one["aria-label"] for one in page.section("How it went on, edit by edit").all("svg")]
    assert [label.partition(",")[0] for label in labels] == [
        "Answers",
        "Answers that got worse",
        "Perplexity",
        "Size of the edited weights",
    ]
    assert "after 2 edits" in labels[0]
    assert "after 6" in labels[0]


def test_settings_times_and_the_way_back_are_there(finished, tmp_path):
    page = report(finished, output=tmp_path / "out.html")
    made = page.section("How it was made").text
    assert "Method EMMET" in made
    assert "Seed of the run 0" in made
    assert re.search(r"Versions python 3\.\d+\.\d+, lightning-edit \d", made)
    seconds = json.loads((finished / "metrics.json").read_text())["seconds"]
    assert f"{sum(seconds.values()):.1f} in all" in made
    undo = page.section("How to undo it").text
    assert "lightning-edit updates remove version_0 1" in undo
    assert "3 updates" in undo


def test_several_runs_are_compared_first(finished, measured, tmp_path):
    page = report(finished, measured, output=tmp_path / "out.html")
    section = page.section("Comparison")
    rows = [row.text for row in section.all("tr")][1:]
    assert len(rows) == 2
    S = json.loads((finished / "metrics.json").read_text())["after"]["S"]
    assert f"{100 * S:.1f}" in rows[0]
    assert page.all("h1")[0].text == "2 runs compared"


def test_a_run_whose_update_was_removed_says_so(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    change_updates(tmp_path / "run", "remove", [2])
    page = report(tmp_path / "run", output=tmp_path / "out.html")
    assert "update 2 was taken out of the model again" in page.all("main")[0].text


def test_a_run_without_records_and_curves_has_a_page(finished, tmp_path):
    (tmp_path / "run").mkdir()
    shutil.copy(finished / "metrics.json", tmp_path / "run")
    text = report(tmp_path / "run", output=tmp_path / "out.html").all("main")[0].text
    assert "so there are no examples" in text
    assert "There is no curve" in text


@pytest.mark.parametrize(
    ("kind", "title", "words", "way_back"),
    [
        ("EditingModule", "6 changed facts in tiny", "in 3 steps", "use the original model again"),
        ("MemoryEditing", "6 changed facts in tiny", "changes none of its own numbers", "use the original model again"),
        ("InContext", "6 facts given to tiny", "changes nothing in the model", "the model was not changed"),
    ],
)
def test_the_page_says_what_a_method_does_to_the_model(kind, title, words, way_back, finished, tmp_path):
    (tmp_path / "run").mkdir()
    metrics = json.loads((finished / "metrics.json").read_text())
    metrics["config"]["model"]["_class_path"] = f"lightning_edit.{kind}"
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    page = report(tmp_path / "run", output=tmp_path / "out.html")
    assert page.all("h1")[0].text == title
    assert words in page.all("main")[0].text
    assert way_back in page.section("How to undo it").text


def test_every_method_has_a_name_that_people_know():
    files = {path.stem for path in (CONFIGS / "solvers").glob("*.yaml")}
    # Those go by the name of their class.
    classes = {"alphaedit", "emmet", "memit", "rome", "rrome", "memit_output"}
    assert files - classes <= PUBLISHED.keys()
    assert PUBLISHED.keys() <= files | {"RROME"}


# -- hostile texts -----------------------------------------------------------------------------------------------------


def test_texts_of_a_run_are_only_texts(measured, tmp_path):
    run = tmp_path / "run<b>"
    shutil.copytree(measured, run)
    for name in ("metrics.json", "records.jsonl"):
        lines = (run / name).read_text(encoding="utf-8")
        for field in ("subject", "target_new", "target_true", "continuation", "prompt", "before", "after", "worse"):
            lines = re.sub(
                rf'("{field}": )"(?:[^"\\]|\\.)*"',
                lambda match: match[1] + json.dumps(HOSTILE, ensure_ascii=False),
                lines,
            )
        (run / name).write_text(lines, encoding="utf-8")
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    metrics["config"]["model"]["model"] = metrics["stopped"] = HOSTILE
    metrics["records_left_out"] = {HOSTILE: [HOSTILE]}
    metrics["after"][f"downstream/{HOSTILE}"] = 3.0
    (run / "metrics.json").write_text(json.dumps(metrics, ensure_ascii=False), encoding="utf-8")
    page = report(run, output=tmp_path / "out.html")
    test_nothing_comes_from_elsewhere_and_nothing_runs(page)
    assert "\u202e" not in page.source
    assert "\u2066" not in page.source
    assert '<script>alert("x")</script><img src=x onerror=alert(1)>\\u202egnp' in page.all("main")[0].text
    assert "{{ 7 * 7 }}" in page.all("main")[0].text


def test_a_hostile_method_is_only_text_in_a_picture(finished, measured, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        metrics = json.loads((finished / "metrics.json").read_text())
        metrics["config"]["model"]["solver"]["class_path"] = f"x.{HOSTILE}{name}\x00\x0c"
        (tmp_path / name / "metrics.json").write_text(json.dumps(metrics))
    page = report(tmp_path / "a", tmp_path / "b", output=tmp_path / "out.html")
    test_nothing_comes_from_elsewhere_and_nothing_runs(page)
    [picture] = page.section("Comparison").all("svg")
    assert '<script>alert("x")' in " ".join(one.text for one in picture.all("text"))
    assert '<script>alert("x")</script>' in picture["aria-label"]
