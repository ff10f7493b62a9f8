"""The benchmark of own terms as a user runs it."""

import json

import pytest

from nnlab.runs.script import run

SCRIPT = "benchmarks/own_term"


@pytest.mark.slow
def test_every_pass_of_every_body_is_measured_and_compared(script, tmp_path, capsys):
    small = ["--images", "4", "--vectors", "32", "--repeats", "3", "--terms", "near"]
    run(script.main, script.Config, [*small, "--out", str(tmp_path / "run")])
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    rows, printed = result["rows"], capsys.readouterr().out
    assert len(rows) == len(printed.splitlines()) == 2 * (4 * 3 + 1)
    for layer in script.LAYERS:
        for which in script.PASSES:
            own, *others = [r for r in rows if (r["layer"], r["pass"]) == (layer, which)]
            assert own["body"] == "adder's own" and own["of the adder"] == 1
            for row in others:
                ratio = row["milliseconds"] / own["milliseconds"]
                assert row["of the adder"] == pytest.approx(ratio)
        whole = [r for r in rows if r["layer"] == layer and r["pass"] == script.BOTH]
        *ours, obvious = [row["megabytes"] for row in whole]
        assert max(ours) < obvious / 4
    assert result["bodies"]["near"]["term_conv_filter_gradient"]["cpu"] == "convolution"
