"""The demo as a user runs it, in small."""

import json

import pytest

from nnlab.runs.script import run

SCRIPT = "adder_vs_cnn"


@pytest.mark.slow
def test_the_demo_leaves_a_whole_run_folder_that_is_not_overwritten(script, tmp_path, capfd):
    out = tmp_path / "run"
    run(script.main, script.Config, ["--epochs", "1", "--out", str(out)])
    printed, said = capfd.readouterr()
    assert said == ""  # the progress display is silent, and nothing warns
    assert "\x1b" not in printed
    for word in ("CNN", "AdderNet", "BNN", "multiplications", "bit ops", "energy"):
        assert word in printed
    assert json.loads((out / "config.json").read_text())["epochs"] == 1
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["network"] for line in lines] == ["CNN", "AdderNet", "BNN"]
    result = json.loads((out / "result.json").read_text())
    assert {"command", "hardware", "versions", "config", "seed", "minutes"} < result.keys()
    table = {row["network"]: row for row in result["table"]}
    assert table["CNN"]["multiplications"] > 40 * table["AdderNet"]["multiplications"]
    assert table["CNN"]["parameter bytes"] > 15 * table["BNN"]["parameter bytes"]
    assert table["AdderNet"]["bit ops"] == 0 < table["BNN"]["bit ops"]
    for name in table:
        assert list((out / "tensorboard" / name).glob("events*"))
        assert (out / "checkpoints" / name / "step_22").is_dir()  # of 1437 // 64
    report = (out / "report.html").read_text()
    assert "Laplace fits better" in report or "Gaussian fits better" in report
    assert not any(f'{attribute}="http' in report for attribute in ("src", "href"))

    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(SystemExit) as stop:
        run(script.main, script.Config, ["--epochs", "1", "--out", str(out)])
    assert stop.value.code == 2 and capfd.readouterr().err.endswith("--overwrite.\n")
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
