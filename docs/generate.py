"""Write what the documents say of the results: nothing of it is typed by hand.

    python docs/generate.py

From the committed results (`experiments/**/results/*.json`) and the docstrings of the scripts it
writes the README.md of each topic of the experiments, their index `experiments/README.md`, and in
README.md and docs/*.md whatever lies between the lines `<!-- generated: NAME -->` and
`<!-- end -->`. A test runs it and compares: committed documents are true.

A script's docstring begins with its question; a paragraph that begins with "Answer:" is the answer,
and its last block of commands makes the result.
"""

import ast
import json
import re
import textwrap
from pathlib import Path
from typing import Any, NamedTuple

from result_tables import EXPERIMENTS, ROOT, markdown_table, result, tables

from nnlab.models import PRETRAINED

TOPICS = {
    "classics": "Classics: from one neuron on",
    "adder": "AdderNets",
    "arithmetics": "Every arithmetic",
    "optimisers": "Signs, bits and vanishing gradients",
    "memory": "Memory and algorithms",
    "text": "Text",
    "transformers": "Transformers",
    "anomaly": "Anomalies in series and logs",
    "images": "Images of your own",
    "detection": "Detection",
    "gan": "Generation",
    "deployment": "Deployment and cost",
    "benchmarks": "Speed and memory",
}


class Script(NamedTuple):
    """An experiment: where it is, what it asks, and what it says of the answer."""

    path: Path
    question: str
    setting: str
    answer: str
    prose: list[str]
    commands: str
    results: list[Path]


def scripts(folder: Path) -> list[Script]:
    """Return the scripts of a folder: the files whose docstring begins with a question."""
    found = []
    for path in sorted(folder.glob("*.py")):
        doc = ast.get_docstring(ast.parse(path.read_text())) or ""
        first, *paragraphs = doc.split("\n\n")
        if "?" not in first:
            continue
        question, _, setting = first.replace("\n", " ").partition("?")
        answer = next((p[8:] for p in paragraphs if p.startswith("Answer: ")), "")
        blocks = [p for p in paragraphs if p.startswith("    ")]
        prose = [p for p in paragraphs if p not in blocks[-1:] and not p.startswith("Answer: ")]
        lines = blocks[-1].splitlines() if blocks else []  # joined where they ended in a backslash
        commands = "\n".join(re.sub(r" {3,}", " ", line[4:]) for line in lines)
        names = [*re.findall(r"`results/(\w+)\.json`", doc), path.stem]
        results = [path.parent / "results" / f"{name}.json" for name in dict.fromkeys(names)]
        results = [result for result in results if result.exists()]
        answer = " ".join(answer.split())
        found.append(
            Script(path, f"{question}?", setting.strip(), answer, prose, commands, results)
        )
    return found


def documents() -> dict[Path, str]:
    """Return what each generated or partly generated file has to say."""
    files = {EXPERIMENTS / "README.md": _index()}
    files |= {EXPERIMENTS / topic / "README.md": _topic(topic) for topic in TOPICS}
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        if path.name != "moved.md":
            files[path] = re.sub(
                r"(<!-- generated: (\w+)(?:, ([^>]+))? -->\n).*?(<!-- end -->)",
                lambda m: f"{m[1]}\n{_block(m[2], m[3])}\n\n{m[4]}",
                path.read_text(),
                flags=re.DOTALL,
            )
    return files


def _block(name: str, caption: str | None) -> str:
    if name in WRITTEN:
        return WRITTEN[name]()
    found = tables(name)
    return found[caption] if caption else "\n\n".join(found.values())


def _pretrained() -> str:
    """Return the table of trained networks, with links from a page of `docs`."""
    rows = []
    for row in PRETRAINED.values():
        script = Path(row.training.script)
        rows.append(
            {
                "name": f"`{row.name}`",
                "network": row.about,
                "data": row.training.dataset,
                "test accuracy / %": row.accuracy,
                "bytes": f"{row.size:,}" if row.ships else "",
                "script": f"[{script.name}](../{script.as_posix()})",
            }
        )
    return markdown_table(rows)


def _index() -> str:
    lines = [
        "# Experiments",
        "",
        "One question, one script, one committed result. Each topic is a folder with its scripts,",
        "their results and a README with all tables. The demo is",
        "[adder_vs_cnn.py](adder_vs_cnn.py). `docs/generate.py` writes this page and those.",
    ]
    demo = scripts(EXPERIMENTS)
    for title, folder, found in [
        ("The demo", EXPERIMENTS, demo),
        *(
            (title, EXPERIMENTS / topic, scripts(EXPERIMENTS / topic))
            for topic, title in TOPICS.items()
        ),
    ]:
        readme = "" if folder == EXPERIMENTS else f"{folder.name}/README.md"
        lines += ["", f"## {f'[{title}]({readme})' if readme else title}", ""]
        lines += ["| question | answer | script |", "|---|---|---|"]
        for script in found:
            link = script.path.relative_to(EXPERIMENTS).as_posix()
            cells = (script.question, script.answer, f"[{script.path.name}]({link})")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _topic(topic: str) -> str:
    parts = [f"# {TOPICS[topic]}"]
    for script in scripts(EXPERIMENTS / topic):
        parts += _section(script)
    return "\n\n".join(parts) + "\n"


def _section(script: Script) -> list[str]:
    parts = [f"## {script.question}", f"{script.setting} {script.answer}".strip()]
    made_by, stems = [], [script.path.stem]
    for path in script.results:
        found = json.loads(path.read_text())
        run = found if "hardware" in found else found.get("provenance") or found["runs"][0]
        machine = f"{run['hardware']}, jax {run['versions']['jax']}"
        made_by.append(f"[{path.name}](results/{path.name}) ({machine})")
        for caption, table in tables(path.stem).items():
            parts += [f"{caption[0].upper()}{caption[1:]}:", table] if caption else [table]
        stems.append(path.stem)
    for picture in sorted(script.path.parent.glob("results/*.png")):
        if picture.stem.startswith(tuple(stems)):
            parts += [f"![{picture.stem.replace('_', ' ')}](results/{picture.name})"]
    parts += map(_markdown, script.prose)
    makes = f" makes {' and '.join(made_by)}" if made_by else ""
    parts += [f"[{script.path.name}](./{script.path.name}){makes}:"]
    return [*parts, f"```\n{script.commands}\n```"]


def _markdown(paragraph: str) -> str:
    """Return a paragraph of a docstring as Markdown."""
    if "===" in paragraph or paragraph.startswith(" "):
        return f"```\n{textwrap.dedent(paragraph)}\n```"
    return re.sub(r"https?://[^\s,;)]+[^\s,;).]", r"<\g<0>>", paragraph)


def _headlines() -> str:
    """Return the README's list of results, with the figures of the results themselves."""

    def rows(stem: str, *keys: str, table: str = "table") -> dict[Any, dict[str, Any]]:
        return {tuple(row[key] for key in keys): row for row in result(stem)[table]}

    mnist = rows("adder_mnist_ablation", "cell", table="rows")
    cifar = rows("adder_cifar10", "network", table="rows")
    speed = rows("speed", "body", "pass", "what", table="rows")
    deployed = rows("deploy_adder", "network", "variant")
    borrowed = {
        row["numbers"]: row["test accuracy / %"] for row in result("borrowed_addernet")["table"]
    }
    nab = rows("anomaly_nab", "detector")[result("anomaly_nab")["detector of the series"],]
    hdfs = [row for row in result("anomaly_hdfs")["table"] if "adder" in row["detector"]]
    shakespeare, *_ = (run["table"][0] for run in result("char_lm")["runs"])
    copied = {(row["network"], row["test"]): row for row in result("ntm")["runs"][0]["tests"]}
    ntm = [row["times as fast"] for row in result("ntm_torch")["table"]]

    def times(body: str, other: str) -> list[float]:
        """Return the least and the greatest ratio over the layers of ResNet-20."""
        layers = {what for _, _, what in speed if what.startswith("resnet20-")}
        medians = [
            [speed[name, "forward + backward", layer]["median"] for name in (body, other)]
            for layer in layers
        ]
        ratios = sorted(a / b for a, b in medians)
        return [ratios[0], ratios[-1]]

    published = times("PyTorch published adder", "nnlab adder")
    peers = times("nnlab adder", "JAX conv")
    before, after, torch = (
        deployed["resnet20", f"{variant}"]
        for variant in ("AdderNet float32", "AdderNet int4", "CNN float32, PyTorch")
    )
    lost = before["test accuracy / %"] - after["test accuracy / %"]
    faster = after["images / s, batch 1"] / torch["images / s, batch 1"]
    percent = {name: f"{row['test_accuracy']:.2f} %" for (name,), row in (mnist | cifar).items()}
    percent["CNN on MNIST"] = f"{mnist['CNN',]['test_accuracy']:.2f} %"
    bullets = f"""
- [LeNet-5 on MNIST, every layer an adder](experiments/adder/adder_mnist_ablation.py):
  {percent["full-adaptive"]}, its CNN {percent["CNN on MNIST"]} (published: 99.40 % both).
- [ResNet-20 on CIFAR-10](experiments/adder/adder_cifar10.py) after 12 of 400 epochs: CNN
  {percent["CNN"]}, AdderNet {percent["AdderNet"]}, BNN {percent["BNN"]} (published: 92.25, 91.84
  and 84.87 %).
- [Adder layers of ResNet-20](experiments/benchmarks/speed.py) on a CPU, forward and backward:
  {published[0]:.0f} to {published[1]:.0f} times as fast as the published layer in PyTorch, and in
  {peers[0]:.2f} to {peers[1]:.2f} of the time of JAX's own convolution.
- [AdderNet's own ResNet-20](experiments/deployment/borrowed_weights.py), borrowed from its authors'
  file: {borrowed["float32"]:.2f} % (published: 91.8 %), in integers of 8 bits
  {borrowed["int8"]:.2f} %.
- [A ResNet-20 AdderNet in integers of 4 bits](experiments/deployment/deploy_adder.py): {lost:.2f}
  points less accurate (published: 1.5), a file of {after["file bytes"] / 1e3:.0f} kB in place of
  {before["file bytes"] / 1e3:,.0f}, and {faster:.1f} times as fast as PyTorch's float32 CNN.
- [An LSTM on tiny-shakespeare](experiments/text/char_lm.py) in 40 minutes on one core:
  {shakespeare["validation loss / nats"]:.3f} nats a character (a transformer of 10 million
  parameters: 1.47).
- [A Neural Turing Machine](experiments/memory/ntm.py) trained to copy up to 20 words:
  {copied["NTM", "length 50"]["right / %"]:.0f} % of sequences of 50 words are right. It trains
  {min(ntm):.0f} to {max(ntm):.0f} times as fast as in plain PyTorch.
- [Anomalies in the 58 series of NAB](experiments/anomaly/anomaly_nab.py), standard profile:
  {nab["standard"]:.1f} (windowed Gaussian 39.6, HTM 70.5).
- [Abnormal sessions of the HDFS log](experiments/anomaly/anomaly_hdfs.py), found by an adder LSTM:
  F1 {max(row["F1 / %"] for row in hdfs):.1f} % (DeepLog: 96 %)."""
    return "\n".join(
        textwrap.fill(" ".join(bullet.split()), 100, initial_indent="- ", subsequent_indent="  ")
        for bullet in bullets.split("\n- ")[1:]
    )


def main() -> None:
    for path, text in documents().items():
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            print(path.relative_to(ROOT))


CHOICES = {  # what is wanted: arithmetics of the result
    "to compare with": ("float",),
    "distances in place of products, and near the CNN after a whole training": ("adder",),
    "additions in place of products, and a small file": ("binary_connect", "ternary"),
    "shifts and additions": ("shift_q",),
    "the smallest file and the least energy": ("binary",),
    "eight bits by the CNN's recipe": ("posit8", "float8"),
}


def _choices() -> str:
    """Return a table of arithmetics by what they are for."""
    found = {row["arithmetic"]: row for row in result("arithmetics_cifar10")["table"]}
    rows = [
        {
            "you want": wanted,
            "take": f"`{name.upper()}`",
            "accuracy / %": found[name]["test accuracy / %"],
            "bytes": found[name]["parameter bytes"],
            "energy / nJ": found[name]["energy / nJ"],
        }
        for wanted, names in CHOICES.items()
        for name in names
    ]
    return markdown_table(rows)


WRITTEN = {"headlines": _headlines, "choices": _choices, "pretrained": _pretrained}


if __name__ == "__main__":
    main()
