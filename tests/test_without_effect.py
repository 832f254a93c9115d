"""Settings that would have no effect beside another one are refused, and say what gives them one."""

import pytest

from lightning_edit import (
    EMMET,
    ChatSettings,
    EditError,
    FineTuning,
    Gradient,
    InContext,
    SecondMomentSettings,
    ValueSettings,
    edit,
)
from tests.small_models import make_gpt2, make_request, make_tokenizer
from tests.small_runs import module


def run(**settings):
    return lambda: module(**{"solver": EMMET(), **settings})


def call(**settings):
    return lambda: edit(make_gpt2(), make_tokenizer(), [make_request()], layers=[0], progress=False, **settings)


NAMED = SecondMomentSettings(preserve=["neighbors"])
REFUSED = [
    (lambda: ValueSettings(radius=0.2), r"`values\.radius` has no effect with `values\.optimizer: adam`\. Set"),
    (lambda: ValueSettings(kl_factor=0, kl_prompt="{} was"), r"`values\.kl_prompt` has no effect with `values\.kl_f"),
    (lambda: ValueSettings(radius=0.2, growth=1.0), r"`values\.radius`, `values\.growth` have no .* leave them out"),
    (run(values=ValueSettings(norm_anchor_edits=5)), r"`values\.norm_anchor_edits` .*`values\.norm_anchor: null`"),
    (call(values=ValueSettings(norm_anchor=2.0, norm_anchor_edits=5)), r"`values\.norm_anchor: 2`\. Set .* to auto"),
    (
        run(solver=EMMET(emmet_lambda=0.5), edits_per_update=1),
        r"`solver\.emmet_lambda` has no effect with `edits_per_up",
    ),
    (lambda: ValueSettings(lr=1e38), r"`values\.lr` must be a number above 0 and at most 1e\+37"),
    (lambda: SecondMomentSettings(source="identity", length=9), r"`second_moment\.length` .*source: identity`, which"),
    (lambda: SecondMomentSettings(source="none", question_share=0.5), r"`second_moment\.question_share` has no"),
    (lambda: SecondMomentSettings(question_share=0.0, subjects="a.txt"), r"`second_moment\.subjects` .*Raise"),
    (lambda: SecondMomentSettings(preserve_weight=3.0), r"preserve_weight` has no effect with an empty `second_mom"),
    (call(source=Gradient(), second_moment=NAMED), r"\.preserve` has no effect with `solver: Ridge`"),
    (call(moments={}, second_moment=NAMED), r"\.preserve` has no effect with `moments`.* Give `texts` instead"),
    (lambda: Gradient(floor=1e-3), r"`source\.floor` has no effect with `source\.normalize: standard`"),
    (lambda: Gradient(normalize="none", warmup=5), r"`source\.warmup` has no effect with `source\.normalize: none`"),
    (lambda: FineTuning("tiny", chat=False, chat_settings=ChatSettings(system="Hi.")), r"system` .*`chat: false`"),
    (call(chat="auto", chat_settings=ChatSettings(system="Hi.")), r"system` .*without a chat template"),
    (call(chat=False, chat_settings=ChatSettings(contexts=["plain"])), r"`chat_settings\.contexts` .*`chat: false`"),
    (lambda: InContext("tiny", nearest=2), r"`nearest` and `threshold` have no effect with `facts: own`"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_a_setting_without_effect_is_refused(make, message):
    with pytest.raises(EditError, match=message):
        make()


def test_beside_what_gives_them_an_effect_they_are_taken():
    assert ValueSettings(optimizer="descent", radius=0.2, growth=1.0).radius == 0.2
    assert SecondMomentSettings(question_share=0.1, subjects="a.txt", preserve=["neighbors"], preserve_weight=3.0)
    # A preset of a model may say how much text there is to read, for whoever reads any.
    assert SecondMomentSettings(source="none", tokens=100).tokens == 100
    assert Gradient(normalize="whitened", floor=1e-3, warmup=5).warmup == 5
    assert module(values=ValueSettings(norm_anchor="auto", norm_anchor_edits=5)).value_settings.norm_anchor_edits == 5
    assert module(solver=EMMET(emmet_lambda=0.5), edits_per_update=1, source=Gradient()).pairs_from is not None
    assert FineTuning("tiny", chat=False, chat_settings=ChatSettings(train_end=True)).train_end
    assert InContext("tiny", facts="tfidf", nearest=2).loop is not None
