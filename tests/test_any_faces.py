"""On faces that nobody made, chapter 8 leaves cells out and says where a figure is missing."""

from types import SimpleNamespace

from studies import any_faces


def test_cells_are_left_out_but_for_those_on_any_faces() -> None:
    assert any_faces.skipped(["figure = 1\n", "render(people)\n"]) == ["pass\n"]
    assert any_faces.skipped(["figures.contact_sheet(faces)\n"]) == ["Markdown('*No figure in this run.*')\n"]
    first, second, table = any_faces.skipped(['markdown(rows, caption="A", name="tab-08-a")\n'])
    assert first.startswith("from ") and second.startswith("from ")
    assert table == 'display(Markdown(not_made("tab-08-a")))\n'
    for line in ("# On any faces\n", 'run = start_notebook("08")\n', 'profile: str = "quick"\n'):
        assert any_faces.skipped([line, "render(people)\n"]) == [line, "render(people)\n"]


def test_leaving_out_begins_once_and_ends() -> None:
    other = str.splitlines
    shell = SimpleNamespace(input_transformers_cleanup=[other])
    any_faces.leave_out_cells(shell)
    any_faces.leave_out_cells(shell)
    assert shell.input_transformers_cleanup == [other, any_faces.skipped]
    any_faces.run_all_cells(shell)
    assert shell.input_transformers_cleanup == [other]
