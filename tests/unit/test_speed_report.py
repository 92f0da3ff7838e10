"""What the benchmark of the builders says of its figures."""

from __future__ import annotations

from pathlib import Path

from building.measures import Values, in_turns
from building.report import Results, Run, page, read_results, tables, verdicts


def edit_of(ours: float, theirs: float, sent: float) -> Run:
    values: Values = {
        "trainpack": {"seconds": [ours, 9.0, 0.0], "sent": [sent] * 3},
        "buildkit-uv": {"seconds": [theirs] * 3, "sent": [9000.0] * 3},
    }
    return Run("edit", "small", True, 3, (0.5, 1.5), values)


def judged(run: Run) -> dict[str, bool]:
    return {title: met for title, _, _, _, met in verdicts(Results(runs=[run]))}


def test_a_target_is_met_by_the_median_at_its_bound() -> None:
    assert list(judged(edit_of(0.75, 1.0, 4000.0)).values()) == [True, True]


def test_a_target_is_missed_just_beyond_its_bound() -> None:
    assert list(judged(edit_of(0.76, 1.0, 4001.0)).values()) == [False, False]


def test_a_target_whose_other_side_was_left_out_is_not_judged() -> None:
    run = edit_of(1.0, 1.0, 1.0)
    del run.values["buildkit-uv"]
    assert len(judged(run)) == 1


def test_a_newer_run_takes_the_place_of_the_older_one_and_of_no_other(tmp_path: Path) -> None:
    results = Results(machine={"cores": "2"})
    results.add(edit_of(0.5, 1.0, 1.0))
    results.add(Run("noop", "small", True, 3, (0.0, 0.0), {"trainpack": {"seconds": [0.25]}}))
    results.add(edit_of(0.25, 1.0, 1.0))
    (tmp_path / "kept.json").write_text(results.json(), encoding="utf-8")
    read = read_results(tmp_path / "kept.json")
    assert read == results
    assert [run.measure for run in read.runs] == ["noop", "edit"]


def test_the_page_shows_machine_medians_load_and_what_is_not_met() -> None:
    text = page(Results(machine={"cores": "2"}, runs=[edit_of(0.9, 1.0, 2000.0)]))
    assert "cores 2" in text
    assert "| one-line edit, built and pushed, s | 0.900 | 1.000 | 3 | 1.5 |" in text
    assert "to BuildKit | small, with byte code | ≤ 0.75 | 0.90 | **not met** |" in text


def test_a_side_that_was_measured_less_often_shows_in_the_rounds() -> None:
    run = edit_of(0.9, 1.0, 2000.0)
    run.values["buildkit-uv"]["seconds"] = [1.0]
    assert "| one-line edit, built and pushed, s | 0.900 | 1.000 | 1 to 3 | 1.5 |" in tables(
        Results(runs=[run])
    )


def test_sides_that_take_long_are_measured_once_and_the_others_in_every_round() -> None:
    turns: list[str] = []

    def measure(name: str) -> dict[str, float]:
        turns.append(name)
        return {"seconds": float(len(turns))}

    values = in_turns(3, ["quick", "slow"], measure, once=["slow"])
    assert turns == ["quick", "slow", "quick", "quick"]
    assert values == {"quick": {"seconds": [1.0, 3.0, 4.0]}, "slow": {"seconds": [2.0]}}


def test_nothing_measured_is_an_empty_page_without_tables() -> None:
    assert tables(Results()) == ""
