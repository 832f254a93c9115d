"""Which texts name an edited subject: in whole words, however many subjects there are."""

import pytest

from lightning_edit.probes import EditedSubjects, facts, filled, folded, general_prompts, subjects
from lightning_edit.whole_words import find_whole

SHIPPED = [subject for of_kind in subjects().values() for subject in of_kind]


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("The Beatles", "When did the beatles part?"),
        ("The Beatles", "BEATLES for sale"),
        ("Iran", "Iran's capital"),
        ("New York", "in New\n York"),
        ("C++", "Who made C++?"),
        ("東京", "日本の東京は"),
        ("서울", "수도는 서울입니다"),
        ("서울 타워", "그 서울 타워는"),
        ("C\u00f4te d'Ivoire", "Where is Co\u0302te d\u2019Ivoire?"),
        ("हिन्दी", "यह हिन्दी है"),
        ("+", "1 + 1"),
        ("The The", "The The played"),
        ("Berlin", "Was ist Berlins Fluss?"),
        ("Budapest", "Hol van Budapesten a Duna?"),
        ("New York", "What do New Yorkers eat?"),
        ("القاهرة", "دمشق والقاهرة"),
        ("ירושלים", "מה יש בירושלים?"),
        ("Hamlet", "Who wrote _Hamlet_, and **when**?"),
        ("Hamlet", "Who wrote __Hamlets__?"),
        ("__init__", "What does __init__ do?"),
    ],
)
def test_a_text_names_a_subject(subject, text):
    assert EditedSubjects([subject]).named_in(text)
    assert EditedSubjects(["", "Anna", subject, *SHIPPED[:50]]).named_in(text)


@pytest.mark.parametrize(
    ("subject", "text"),
    [
        ("Iran", "Tirana"),
        ("Go", "Chicago, Oregon"),
        ("Art", "Arthur slept"),
        ("서울", "대서울"),
        ("हिन्द", "हिन्दी"),
        ("2001", "12001"),
        (" ", "a b"),
        ("New York", "York is new"),
        ("The The", "The cat and the dog"),
        ("R", "Rome or Erik's R2"),
        ("Iran", "Irans neighbors"),
        ("Berlin", "Berlinization, Eastberlin, Berlin7 or Berlin_x"),
        ("China", "Chinatown"),
        ("Berlin", "Xberlin"),
        ("القاهرة", "xالقاهرة"),
    ],
)
def test_a_part_of_a_longer_word_is_no_name(subject, text):
    assert not EditedSubjects([subject]).named_in(text)


@pytest.mark.parametrize(("subject", "most"), [("R", 4), ("C", 6), ("It", 6), ("Go", 1), ("Iran", 1)])
def test_short_names_are_in_few_of_the_shipped_subjects(subject, most):
    edited = EditedSubjects([subject])
    assert edited.folded == {folded(subject)}
    assert 1 <= sum(map(edited.named_in, SHIPPED)) <= most


def test_many_subjects_are_found_as_if_each_were_looked_for():
    named = SHIPPED[::7]
    edited, count = EditedSubjects(named), 0
    about_facts = [filled(fact.prompt, fact.subject) for fact in facts()[::40]]
    for text in (*(prompt.prompt for prompt in general_prompts()[::4]), *about_facts):
        expected = any(find_whole(folded(text), folded(subject)) is not None for subject in named)
        near = [subject for subject in named if folded(subject) in folded(text)]
        expected = expected or any(EditedSubjects([subject]).named_in(text) for subject in near)
        assert edited.named_in(text) is expected, text
        count += expected
    assert count > 10
