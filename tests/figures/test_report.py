"""The report is one file that fetches nothing, escapes everything and says what it must."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest

from nnlab.errors import InputError
from nnlab.figures.plots import HISTORY, MINUS, Network
from nnlab.figures.report import verdict, write_report

HOSTILE = "<script>alert('&')</script>"


class Page(HTMLParser):
    """Every tag with its attributes, and the text outside of style sheets."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def count(self, tag):
        return sum(name == tag for name, _ in self.tags)


def network(name):
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = np.eye(3)[labels] + 0.01 * rng.normal(size=(60, 3))
    history = {key: [0.5, 0.6] for key in HISTORY}
    return Network(name, history, rng.laplace(size=5000), features, labels, features, labels)


def write(path, **changes):
    arguments = {
        "title": HOSTILE,
        "networks": [network("AdderNet"), network(HOSTILE)],
        "table": [{"network": HOSTILE, "top-1 / %": -99.125, "multiplications": np.int64(41_000)}],
        "config": {"learning_rate": 0.1, HOSTILE: HOSTILE},
        "provenance": {"command": "python train.py --seed 3", "seed": 3, "note": HOSTILE},
        "notes": [HOSTILE],
    }
    write_report(path, **(arguments | changes))
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write(tmp_path_factory.mktemp("report") / "runs" / "report.html")


def test_page_holds_everything_and_fetches_nothing(text):
    page = Page(text)
    assert page.count("svg") == 3
    assert page.count("script") == page.count("link") == page.count("iframe") == 0
    links = [
        value
        for _, attributes in page.tags
        for key, value in attributes.items()
        if key.split(":")[-1] in ("src", "href")
    ]
    assert any(link.startswith("data:image/png") for link in links)
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\((?!#)|@import", text)
    for expected in [
        "python train.py --seed 3",
        "learning_rate",
        "41,000",
        "top-1 / %",
        f"{MINUS}99.12",
    ]:
        assert expected in page.text


def test_all_text_is_escaped(text):
    page = Page(text)
    # title twice, table, note, verdict, geometry, provenance, configuration twice
    assert page.text.count(HOSTILE) == 9


def test_text_of_figures_follows_the_page(text):
    svg = text.split("<svg", 1)[1]
    assert "currentColor" in svg and "var(--rule)" in svg
    assert "#24292f" not in svg and "#c9ced4" not in svg


def test_lag_of_batch_norm_is_said_in_one_sentence(text):
    (sentence,) = re.findall(r"[^.]*BatchNorm[^.]*\.", Page(text).text)
    assert "lag" in sentence and "understate" in sentence


def test_verdict_names_the_better_fit_and_both_likelihoods():
    sentence = verdict(network("ResNet-20"))
    number = rf"{MINUS}1\.\d{{4}}"
    assert re.fullmatch(
        rf"ResNet-20: Laplace fits better than Gaussian: {number} against {number} nats a weight"
        r" over 5,000 weights\.",
        sentence,
    )


def test_same_input_same_bytes_and_no_partial_file(tmp_path, text):
    assert write(tmp_path / "b.html") == text
    assert [path.name for path in tmp_path.iterdir()] == ["b.html"]


def test_a_failure_leaves_the_old_report(tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old", encoding="utf-8")
    broken = network("CNN")._replace(weights=[np.nan])
    with pytest.raises(InputError, match="cannot fit"):
        write(path, networks=[broken])
    assert path.read_text(encoding="utf-8") == "old"

    def full_disk(self, text, encoding, **options):
        self.write_bytes(text[:100].encode(encoding))
        raise OSError("no space left")

    monkeypatch.setattr(type(path), "write_text", full_disk)
    with pytest.raises(InputError, match="cannot be written: no space left"):
        write(path, networks=[network("CNN")])
    assert path.read_text(encoding="utf-8") == "old"


def test_rows_must_agree(tmp_path):
    with pytest.raises(InputError, match=r"\['a', 'b'\] and \['a'\]"):
        write(tmp_path / "report.html", table=[{"a": 1, "b": 2}, {"a": 1}])


def test_an_empty_table_leaves_no_heading(tmp_path):
    assert "Results" not in write(tmp_path / "report.html", networks=[network("CNN")], table=[])
