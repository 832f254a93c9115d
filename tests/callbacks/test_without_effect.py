import pytest

from lightning_edit import EditError
from lightning_edit.callbacks import Downstream, Harness, Retention, Watch
from tests.shared_runs import command

GIVEN = {
    "a sample of no retention": (Retention, {"sample": 5}, "`retention.sample` has no effect"),
    "rows of no task": (Downstream, {"tests": 7, "shots": 1}, "`downstream.shots`, `downstream.tests` have no effect"),
    "rows of no harness task": (Harness, {"limit": 3}, "`harness.limit` has no effect"),
    "windows of no text": (Watch, {"perplexity_windows": 50}, "`watch.perplexity_windows` has no effect"),
    "a limit of no text": (Watch, {"max_perplexity_factor": 1.5}, "`watch.max_perplexity_factor` has no effect"),
}


@pytest.mark.parametrize(("callback", "given", "said"), GIVEN.values(), ids=GIVEN)
def test_settings_of_what_is_not_measured_are_refused(callback, given, said):
    with pytest.raises(EditError, match=said):
        callback(**given)


def test_a_limit_can_be_taken_off_where_nothing_is_measured():
    assert Watch(max_perplexity_factor=None, max_worse=None).limits.worse is None


def test_a_limit_on_answers_that_nobody_asks_for_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        command(tmp_path, "--collateral.prompts=0", "--watch.max_worse=0.05", "--watch.on_degradation=stop")
    assert "`watch.max_worse` has no effect with `collateral.prompts: 0`" in capsys.readouterr().err
    assert not list(tmp_path.rglob("update-*"))
