"""`sample` on every kind of model and in both directions, piped and on a terminal where text grows."""

from __future__ import annotations

import io
import re
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lexarium.cli.console import harmless
from lexarium.cli.growing import growing
from lexarium.cli.main import main
from lexarium.studies.run import Run

RUN = """
corpus: {{type: question_formation, sizes: {{train: 60, val: 20, test: 0, ood: 0}}}}
model: {{{model}}}
direction: {{type: {direction}}}
objective: {{type: {objective}}}
packing: {{{packing}}}
train: {{max_steps: 4, global_batch_size: 8}}
evaluations: []
"""
STACK = "n_layers: 1, d_model: 16, n_heads: 2, d_ff: 32"
ARMS = {
    "gpt": (f"type: transformer, preset: arrow_nano, {STACK}, max_positions: 12", "forward", "causal"),
    "gpt backward": (f"type: transformer, {STACK}", "backward", "causal"),
    "gru": ("type: recurrent, preset: arrow_gru_small, d_model: 16", "forward", "causal"),
    "lstm backward": ("type: recurrent, preset: arrow_lstm_small, d_model: 16", "backward", "causal"),
    "both": (
        f"type: transformer, preset: arrow_nano, {STACK}, max_positions: 10",
        "both",
        "causal, eos: false",
    ),
    "permutation": (
        f"type: transformer, preset: arrow_nano, {STACK}, max_positions: 10",
        "permutation",
        "causal, eos: false",
    ),
    "joined": (
        f"type: transformer, preset: arrow_nano, {STACK}, max_positions: 10",
        "forward",
        "causal, bos: false, eos: false",
    ),
    "pair": (f"type: encoder_decoder, {STACK}", "forward", "seq2seq"),
}
PLAIN = [arm for arm in ARMS if arm not in ("both", "permutation", "joined")]
PROMPT = "my raven that her newt"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The directory of a trained run of an arm."""
    made: dict[str, Path] = {}

    def find(arm: str) -> Path:
        if arm not in made:
            folder = tmp_path_factory.mktemp("sample")
            model, direction, objective = ARMS[arm]
            packing = (
                f"type: windows, seq_len: 10, separator: {str(arm == 'joined').lower()}"
                if "10" in model or arm == "gpt"
                else "type: documents"
            )
            file = folder / "run.yaml"
            file.write_text(
                RUN.format(model=model, direction=direction, objective=objective, packing=packing),
                encoding="utf-8",
            )
            assert main(["train", str(file), "--runs-dir", str(folder / "runs")]) == 0
            (made[arm],) = (folder / "runs").glob("question-*")
        return made[arm]

    return find


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> str:
    screen = Terminal()
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", screen)
        patch.setenv("TERM", "xterm-256color")
        patch.setenv("COLUMNS", "200")
        assert main([str(a) for a in arguments]) == 0
    return screen.getvalue()


@pytest.mark.parametrize("arm", PLAIN)
@pytest.mark.parametrize("number", [1, 3])
def test_the_same_text_piped_as_json_and_on_a_terminal(
    lexarium, run, monkeypatch: pytest.MonkeyPatch, arm: str, number: int
) -> None:
    ask = ("sample", run(arm), "--prompt", PROMPT, "-n", number, "--max-new", 5, "--top-k", 20, "--seed", 4)
    samples = lexarium(*ask, "--json").json["samples"]
    assert len(samples) == number and all(len(s["continuation"].split()) <= 5 for s in samples)
    for s in samples:
        begins, ends = s["text"].startswith(PROMPT), s["text"].endswith(PROMPT)
        assert (begins, ends) == (True, False) if "backward" not in arm and arm != "pair" else True
        assert ends or "backward" not in arm, "a backward model writes what stands before the prompt"
        if arm == "pair":
            assert s["text"] == s["continuation"]
    texts = [s["text"] for s in samples]
    assert lexarium(*ask).out.splitlines() == texts
    screen = on_a_terminal(monkeypatch, *ask)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen).replace("\r", "")
    assert plain.endswith("".join(f"{t}\n" for t in texts))
    if arm in ("gpt", "gru") and number == 1:
        assert screen == texts[0] + "\n", "text that grows at its end is never written twice"


@pytest.mark.parametrize("arm", ["gpt backward", "lstm backward"])
def test_backward_text_grows_to_the_left(run, monkeypatch: pytest.MonkeyPatch, arm: str) -> None:
    ask = ("sample", run(arm), "--prompt", PROMPT, "--max-new", 5, "--temperature", 0)
    screen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", on_a_terminal(monkeypatch, *ask)).replace("\r", "\n")
    drawn = [line for line in map(str.strip, screen.splitlines()) if line]
    words = [line.split() for line in drawn]
    assert drawn[0] == PROMPT and all(line.endswith(PROMPT) for line in drawn)
    assert all(b[-len(a) :] == a for a, b in zip(words, words[1:], strict=False))
    assert len({len(w) for w in words}) == 6, "the prompt, and every token as it comes"


@pytest.mark.parametrize("arm", PLAIN)
def test_temperature_zero_is_greedy(lexarium, run, arm: str) -> None:
    greedy = Run.open(run(arm)).scorer().generate([PROMPT], 6)
    ask = ("sample", run(arm), "-p", PROMPT, "--max-new", 6, "-t", 0, "--json")
    for more in ((), ("--seed", 9), ("--top-k", 2), ("--top-p", 0.5)):
        assert [s["continuation"] for s in lexarium(*ask, *more).json["samples"]] == greedy


def test_slide_goes_on_where_the_positions_end(lexarium, run) -> None:
    long = " ".join([PROMPT] * 3)
    ask = ("sample", run("gpt"), "--max-new", 30, "--temperature", 3, "-n", 8, "--json")
    answer = lexarium(*ask, "--prompt", long)
    assert answer.status == 2 and "fills the 12 positions" in answer.err and "--slide" in answer.err
    lengths = lambda *more: [len(s["continuation"].split()) for s in lexarium(*ask, *more).json["samples"]]
    assert max(lengths("--prompt", PROMPT)) <= 12 - 5 < max(lengths("--prompt", PROMPT, "--slide"))
    assert max(lengths("--prompt", long, "--slide")) > 12


def test_mistakes(lexarium, run) -> None:
    answer = lexarium("sample", run("gru"), "--top-p", "1.5")
    assert answer.status == 2 and "top_p: found 1.5" in answer.err and len(answer.err.splitlines()) == 1
    assert lexarium("sample", run("gru"), "--top-k", "0").status == 2
    answer = lexarium("sample", run("pair"), "--max-new", "3")
    assert answer.status == 2 and "needs a text to read" in answer.err


def test_a_model_of_both_directions_is_asked_in_one(lexarium, run) -> None:
    answer = lexarium("sample", run("both"), "--prompt", PROMPT)
    assert answer.status == 2 and "say forward or backward" in answer.err
    texts = {}
    for direction in ("forward", "backward"):
        ask = ("sample", run("both"), "--prompt", PROMPT, "--direction", direction, "--max-new", 3, "--json")
        (found,) = lexarium(*ask).json["samples"]
        texts[direction] = found["text"]
    assert texts["forward"].startswith(PROMPT) and texts["backward"].endswith(PROMPT)
    answer = lexarium("sample", run("gpt"), "--direction", "backward")
    assert answer.status == 2 and "this model reads forward only" in answer.err


def test_a_permutation_writes_whole_windows(lexarium, run) -> None:
    """In the order of the corpus: undone on ids, which the scorer gives in reading order."""
    (found,) = lexarium("sample", run("permutation"), "--json", "--temperature", 0).json["samples"]
    scorer = Run.open(run("permutation")).scorer()
    (ids,) = scorer.generate_ids([""], 10)
    order = scorer._direction.order(10)
    back = [0] * 10
    for place, token in zip(order.tolist(), ids, strict=True):
        back[place] = token
    assert found["text"].split() == scorer.tokenizer.decode(back).split()
    answer = lexarium("sample", run("permutation"), "--prompt", PROMPT)
    assert answer.status == 2 and "writes whole windows of 10 tokens" in answer.err
    answer = lexarium("sample", run("permutation"), "--max-new", 64)
    assert answer.status == 2 and "--max-new: direction 'permutation' writes whole windows" in answer.err


def test_help_says_what_a_prompt_is(lexarium) -> None:
    out = re.sub(r"[\s│]+", " ", lexarium("sample", "--help").out)
    assert "the prompt is the text's ENDING" in out


@pytest.mark.parametrize("arm", ["gpt", "gpt backward", "permutation"])
@pytest.mark.parametrize("number", [1, 2])
def test_what_a_terminal_would_obey_is_written_out(
    lexarium, run, monkeypatch: pytest.MonkeyPatch, arm: str, number: int
) -> None:
    """A tokenizer whose every text holds an escape sequence, a bell, DEL and a C1 character."""
    from lexarium.evaluations.scorer import Scorer

    wild, whole = "\x1b[31mred\x07\x7f\x9b\r\tx\ny", Scorer.text
    monkeypatch.setattr(Scorer, "text", lambda *a: f"{wild} {whole(*a)} {wild}")
    more = () if arm == "permutation" else ("--prompt", PROMPT, "--max-new", 2)
    ask = ("sample", run(arm), "-n", number, *more)
    screen = on_a_terminal(monkeypatch, *ask)
    assert "\x1b[31m" not in screen and not {"\x07", "\x7f", "\x9b"} & set(screen)
    assert screen.count(r"\x1b[31mred\x07\x7f\x9b\x0d") >= 2 * number
    assert wild in lexarium(*ask).out, "a file gets what the model wrote"
    assert all(wild in s["text"] for s in lexarium(*ask, "--json").json["samples"])


def test_which_characters_are_written_out() -> None:
    """By the Unicode category Cc, but for line end and tab."""
    for i in range(0x300):
        control = unicodedata.category(chr(i)) == "Cc" and chr(i) not in "\n\t"
        assert harmless(chr(i)) == (f"\\x{i:02x}" if control else chr(i))


# --- text that grows --------------------------------------------------------------------------------


def test_a_text_that_is_taken_back_is_written_whole_at_the_end() -> None:
    screen = Terminal()
    with growing(screen, ["a"], at_its_end=True) as show:
        for text in ("ab", "ax", "abc", "xyz"):
            show(0, text)
    assert screen.getvalue() == "abc\nxyz\n"


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("at_its_end", [True, False])
def test_what_was_shown_stays_when_the_work_is_broken_off(number: int, at_its_end: bool) -> None:
    screen = Terminal()
    with pytest.raises(KeyboardInterrupt), growing(screen, ["a"] * number, at_its_end) as show:
        show(0, "ab [bold]c")
        raise KeyboardInterrupt
    assert screen.getvalue().endswith("ab [bold]c\n" + "a\n" * (number - 1)), "and marks of rich are text"


def test_a_model_of_joined_documents_begins_where_one_ends(lexarium, run) -> None:
    """It has no bos; what stands before a document in training is the boundary, and the text does not show it."""
    found = Run.open(run("joined")).scorer()
    answer = lexarium("sample", run("joined"), "--temperature", "0", "--max-new", "6", "--json").json[
        "samples"
    ][0]
    ids, end = [found.roles["eos"]], found.roles["eos"]
    with torch.no_grad():
        while len(ids) < 7 and (len(ids) == 1 or ids[-1] != end):
            output = found.model(tokens=torch.tensor([ids]))
            ids.append(int(output.unembed(output.hidden)[-1].argmax()))
    wanted = found.tokenizer.decode([i for i in ids if i != end])
    assert answer["text"] == answer["continuation"] == wanted and wanted
    answer = lexarium("sample", run("permutation"), "--prompt", "")
    assert answer.status == 0
