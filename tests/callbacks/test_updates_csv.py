"""The table of updates: what it holds, and how it goes on after a run was killed."""

import logging

from lightning_edit.callbacks.updates_csv import UpdatesCSV


def table(path, write=True):
    return UpdatesCSV(path, write)


def test_a_table_goes_on_where_a_checkpoint_left_it(tmp_path):
    path = tmp_path / "updates.csv"
    made = table(path)
    made.begin()
    made.append({"update": 1, "a": 0.123456789})
    made.append({"update": 2, "a": None})
    then, columns = path.read_bytes(), list(made.columns)
    assert then == b"update,a\n1,0.123457\n2,\n"
    made.append({"update": 3, "a": float("nan"), "b": 1.0})
    assert path.read_text() == "update,a,b\n1,0.123457,\n2,,\n3,,1\n"
    made.append({"update": 4, "a": float("-inf"), "b": float("inf")})
    assert path.read_text().endswith("3,,1\n4,,\n")
    with path.open("a") as file:
        file.write("4,0.")
    again = table(path)
    again.begin(columns, 2)
    assert path.read_bytes() == then
    again.append({"update": 3, "a": 2.0})
    assert path.read_text() == "update,a\n1,0.123457\n2,\n3,2\n"


def test_a_table_that_lost_rows_says_so(tmp_path, caplog):
    path = tmp_path / "updates.csv"
    path.write_text("update,a\n1,2\n3,")
    with caplog.at_level(logging.WARNING):
        table(path).begin(["update", "a"], 2)
    assert path.read_text() == "update,a\n1,2\n"
    assert "has 1 of the 2 updates" in caplog.text


def test_other_processes_do_not_write(tmp_path):
    made = table(tmp_path / "updates.csv", write=False)
    made.begin()
    made.append({"update": 1})
    assert made.rows == 1
    assert not made.path.exists()
