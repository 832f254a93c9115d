"""A chat model, small enough to be edited in a moment."""

import pytest

from tests.small_models import save_chat_model

# The shortest template there is: what is asked, and behind it the answer.
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


@pytest.fixture(scope="module")
def chat_model(tmp_path_factory):
    return save_chat_model(tmp_path_factory.mktemp("chat"), TEMPLATE)
