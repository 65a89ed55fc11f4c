"""Subword and byte tokenizers: every text comes back, engines agree, transformers loads what was saved."""

from __future__ import annotations

import io
import json
import unicodedata
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from lexarium.foundation import registry
from lexarium.foundation.files import Damaged
from lexarium.foundation.types import Document, UserError
from lexarium.tokens.prepare import open_tokenizer
from lexarium.tokens.subword import engines
from lexarium.tokens.subword.training_text import TrainingText
from lexarium.tokens.tokenizers import save_tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "data" / "text"
KINDS = ["bpe", "byte", "sp-bpe", "sp-unigram"]

HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=60),
    st.lists(
        st.sampled_from(
            ["a", " ", "  ", "\n", "\n\n", "\t", "\r\n", "\0", "é", "e\u0301", "\u2581", "\u2028", "שלום", "עברית ", "العربية", "日本語",
             "👩‍👩‍👧", "\U000e0041", "<|endoftext|>", "<unk>", "<0x41>", "'s", "'S", "don't", "123", "½", "\u00a0", "\u3000", "\ufeff", "\u200d", "ſ", "ß"]
        ),
        max_size=30,
    ).map("".join),
)  # fmt: skip


class Texts:
    """A corpus of one split."""

    splits = ("train",)

    def __init__(self, texts: list[str]) -> None:
        self._texts = texts

    def documents(self, split: str) -> Any:
        return (Document(text) for text in self._texts)

    def symbols(self) -> list[str]:
        return []


def sample() -> list[str]:
    text = (
        "the cat sat on the mat and the élève said don't go 1984 日本 שלום while seventeen curious travellers quickly"
        " examined broken umbrellas beneath yellow lanterns, whispering strange names of forgotten villages"
    )
    words = text.split()
    return [" ".join(words[(i * j) % len(words)] for j in range(1, 30)) + ".\n" for i in range(1, 200)]


def config(name: str, **options: Any) -> Any:
    kind, _, model = name.partition("-")
    kind = "sentencepiece" if kind == "sp" else kind
    given = {
        **({"model": model} if model else {}),
        **({} if kind == "byte" else {"vocab_size": 330}),
        **options,
    }
    return registry.find("tokenizer", kind).Config(**given)


def trained(name: str, **options: Any) -> Any:
    chosen = config(name, **options)
    tokenizer = registry.find("tokenizer", chosen.type)(chosen)
    tokenizer.train(Texts(sample()))
    return tokenizer


@cache
def known(name: str) -> Any:
    return trained(name)


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=HOSTILE)
def test_every_text_comes_back(name: str, text: str) -> None:
    tokenizer = known(name)
    ids = tokenizer.encode_ids(text)
    assert tokenizer.decode(ids) == text
    again, first = tokenizer.encode(text)
    assert np.array_equal(ids, again) and 0 not in ids
    assert tokenizer.byte_lengths()[ids].sum() == len(text.encode())
    want = [
        len(text.encode()[:n].decode(errors="ignore"))
        for n in np.cumsum([0, *tokenizer.byte_lengths()[ids]])[:-1]
    ]
    assert first.tolist() == want


@pytest.mark.parametrize("name", KINDS)
def test_half_a_surrogate_pair_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"not valid Unicode: half a surrogate pair at character 2"):
        known(name).encode_ids("ab\ud800c")


@pytest.mark.parametrize("name", KINDS)
@settings(max_examples=60, deadline=None)
@given(text=HOSTILE)
def test_the_saved_file_gives_the_same_ids(name: str, text: str) -> None:
    """`tokenizer.json` in the library, as transformers uses it, but for characters that it takes for tokens."""
    text = text.replace("\u2581", "").replace("<", "")
    tokenizer = known(name)
    saved = _saved(name)
    assert saved.encode(text, add_special_tokens=False).ids == tokenizer.encode_ids(text).tolist()
    assert saved.decode(tokenizer.encode_ids(text).tolist(), skip_special_tokens=False) == text


@cache
def _saved(name: str) -> Tokenizer:
    return Tokenizer.from_str(known(name).dump())


@pytest.mark.parametrize("name", KINDS)
def test_transformers_loads_the_folder(name: str, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = known(name)
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(str(tmp_path))
    for text in ("the cat don't sat ", "  élève\n日本 שלום\n"):
        assert loaded(text, add_special_tokens=False)["input_ids"] == tokenizer.encode_ids(text).tolist()
        assert loaded.decode(tokenizer.encode_ids(text).tolist()) == text
    assert loaded.bos_token_id == loaded.eos_token_id == 0
    assert len(loaded) == tokenizer.vocab_size


@pytest.mark.parametrize("name", KINDS)
def test_training_twice_gives_one_tokenizer_and_files_bring_it_back(name: str, tmp_path: Path) -> None:
    one, other = trained(name), trained(name)
    assert one.dump() == other.dump() and one.fingerprint() == other.fingerprint()
    save_tokenizer(one, tmp_path)
    back = open_tokenizer(config(name), tmp_path)
    assert back.fingerprint() == one.fingerprint() and back.roles == one.roles == {
        "bos": 0,
        "eos": 0,
        "pad": 0,
    }
    assert np.array_equal(back.encode_ids("the cat é"), one.encode_ids("the cat é"))


RULES = {
    "default": {},
    "nfkc_cf": {"normalization_rule_name": "nfkc_cf", "byte_fallback": True},
    "nfkc": {"normalization_rule_name": "nfkc", "byte_fallback": True, "add_dummy_prefix": False,
             "remove_extra_whitespaces": False},
    "identity": {"normalization_rule_name": "identity", "byte_fallback": True, "add_dummy_prefix": False,
                 "remove_extra_whitespaces": False},
}  # fmt: skip


@pytest.mark.parametrize("kind", ["unigram", "bpe"])
@pytest.mark.parametrize("rules", RULES)
def test_models_made_elsewhere(tmp_path: Path, rules: str, kind: str) -> None:
    """What such a model does to a text is in the saved file too, and is refused unless it was accepted."""
    library = pytest.importorskip("sentencepiece")
    sink = io.BytesIO()
    library.SentencePieceTrainer.train(
        sentence_iterator=iter(line for text in sample() for line in text.splitlines() if line), model_writer=sink,
        vocab_size=400, hard_vocab_limit=False, model_type=kind, minloglevel=2, **RULES[rules],
    )  # fmt: skip
    (tmp_path / "m.model").write_bytes(sink.getvalue())
    cls = registry.find("tokenizer", "sentencepiece")
    made = lambda **o: cls(cls.Config(path=str(tmp_path / "m.model"), **o))
    tokenizer = made(lossy=True)
    tokenizer.train(Texts([]))
    other = Tokenizer.from_str(tokenizer.dump())
    for text in ("Hello World", "ﬁne １２", "  two  spaces ", "the cat", "Où é"):
        ids = tokenizer.encode_ids(text).tolist()
        assert ids == other.encode(text, add_special_tokens=False).ids, text
        if not set(ids) & tokenizer._special:  # of unknown characters, one library keeps the space before
            assert other.decode(ids) == tokenizer.decode(ids)
    strict = made()
    strict.train(Texts([]))
    if rules == "identity":
        assert strict.decode(strict.encode_ids("ﬁne １２  ")) == "ﬁne １２  "
        return
    with pytest.raises(UserError, match="does not write the text back"):
        strict.encode_ids("ﬁne １２")


# --- byte-level BPE ---------------------------------------------------------------------------------


def test_the_ids_are_those_of_the_recipe() -> None:
    """Spec 2.1: the special token has id 0, bytes follow (`!` = 1), merges after them."""
    tokenizer = known("bpe")
    assert tokenizer.vocab_size == 330 and tokenizer.symbols[0] == "<|endoftext|>"
    assert tokenizer.id("!") == 1 and {len(t) for t in tokenizer.tokens[1:257]} == {1}
    assert len({*tokenizer.tokens[1:257]}) == 256
    assert tokenizer.tokens[257] == max_pair()


def max_pair() -> bytes:
    """The commonest pair of bytes within words, counted by hand."""
    counts: dict[bytes, int] = {}
    for text in sample():
        for word in regex.findall(
            r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+", text
        ):
            data = word.encode()
            for i in range(len(data) - 1):
                counts[data[i : i + 2]] = counts.get(data[i : i + 2], 0) + 1
    return max(counts, key=counts.__getitem__)


@settings(max_examples=100, deadline=None)
@given(text=HOSTILE)
def test_both_engines_give_the_same_ids(text: str) -> None:
    fast, slow = known("bpe"), _engine("tokenizers")
    assert fast.encode_ids(text).tolist() == slow.encode_ids(text).tolist()


@cache
def _engine(name: str) -> Any:
    return trained("bpe", engine=name)


def _class_alike(points: list[str]) -> None:
    """Each code point between letters, digits, signs and spaces, straight through both engines."""
    pytest.importorskip("tiktoken")
    checked = known("bpe")._engine
    for start in range(0, len(points), 50_000):
        asked = np.array([ord(c) for c in points[start : start + 50_000]])
        kinds = engines.classes(asked)
        assert [bool(regex.match(r"\s", chr(c))) for c in asked] == (kinds == engines.SPACE).tolist()
        alike = kinds != engines.DIFFERENT
        text = "".join(
            f"a{chr(c)} {chr(c)}1{chr(c)}.{chr(c)}{chr(c)}\n{chr(c)} {chr(c)}a" for c in asked[alike]
        )
        assert checked(text) == checked._reference(text)
        assert alike.mean() > 0.99


ALL = [chr(i) for i in range(0x110000) if not 0xD800 <= i < 0xE000]


def test_both_engines_class_code_points_alike() -> None:
    """Wherever Unicode's category changes, and every 97th code point."""
    kinds = [unicodedata.category(c) for c in ALL]
    _class_alike([c for i, c in enumerate(ALL) if i % 97 == 0 or kinds[i] != kinds[i - 1]])


@pytest.mark.slow
def test_both_engines_class_every_code_point_alike() -> None:
    _class_alike(ALL)


def test_the_probes_show_every_class() -> None:
    """What `regex` says of a code point's class, both engines' ids say too; white space is joined with none."""
    pytest.importorskip("tiktoken")
    for c in (*b"a7 .\n", 0xE9, 0x0663, 0x3000, 0x20AC, 0x1F600, 0x05D0, 0x0301, 0xBD):
        where = {"x": r"\p{L}", "1": r"\p{N}", ".": r"[^\s\p{L}\p{N}]"}
        for before, kind in where.items():
            joined = regex.fullmatch(kind, chr(c)) is not None
            for engine in engines.probes():
                ids = engine(f"\n{before}{chr(c)}")
                assert (len(ids) == len(chr(c).encode()) + 1) == joined, (before, hex(c))


def test_a_difference_between_engines_leaves_its_text_to_the_reference() -> None:
    """An engine that takes one code point for another is found out when it is met."""
    reference = lambda text: [ord(c) for c in text]
    wrong = lambda text: [0 if c == "\u1234" else ord(c) for c in text]
    asked: list[int] = []

    def classes(points: np.ndarray) -> np.ndarray:
        asked.extend(points.tolist())
        return engines.classes(points, lambda: (wrong, reference))

    engine = engines.CheckedEngine(wrong, reference, classes)
    texts = ("plain é text", "x\nthe \u1234 line\ny", "plain é text", "ascii", "é \u1234")
    for text in texts:
        assert engine(text) == reference(text)
    assert engine.differing == [0x1234]
    assert sorted(asked) == sorted({ord(c) for c in "".join(texts)}), "each is asked about once"
    with pytest.raises(UnicodeEncodeError):
        engine("half a pair \ud800")


SPACES = ["\n", " ", "\t", "\r", "\x0b", "\x85", "\xa0", "\u2003", "\u2028", "\u3000", "\u200b"]


PARTS = [*SPACES, *SPACES, "a", "Wörter", "7", "42", ".", "'s", "'", "—", "é"]


@cache
def _of_spaces() -> Any:
    """A tokenizer whose merges join white space with itself and with what follows, so that its ids show every cut."""
    random = np.random.default_rng(0)
    tokenizer = registry.find("tokenizer", "bpe")(config("bpe", vocab_size=900))
    tokenizer.train(Texts(["".join(random.choice(PARTS, 400)) for _ in range(60)]))
    return tokenizer


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.sampled_from(PARTS)))
def test_white_space_is_cut_as_the_reference_cuts_it(parts: list[str]) -> None:
    pytest.importorskip("tiktoken")
    tokenizer, text = _of_spaces(), "".join(parts)
    assert tokenizer.encode_ids(text).tolist() == tokenizer._slow(text)


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data/text is not there")
@pytest.mark.parametrize("name", ["fr-eltec-1.txt", "de-eltec-2.txt", "en-tinyshakespeare.txt"])
def test_engines_agree_over_whole_files(name: str) -> None:
    text = (SHARED / name).read_text(encoding="utf-8")
    tokenizer = _over_files()
    slow = tokenizer._reference.encode(text, add_special_tokens=False).ids
    assert tokenizer._engine.differing == [] and tokenizer.encode_ids(text).tolist() == slow


@cache
def _over_files() -> Any:
    chosen = config("bpe", vocab_size=4096)
    tokenizer = registry.find("tokenizer", "bpe")(chosen)
    tokenizer.train(Texts([(SHARED / "fr-eltec-2.txt").read_text(encoding="utf-8")]))
    return tokenizer


def test_a_vocabulary_larger_than_the_text_supports_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"vocab_size is 50,257, but the text .* has pairs for \d+ only; use tokenizer.vocab_size=",
    ):
        trained("bpe", vocab_size=50257)
    with pytest.raises(UserError, match=r"tokenizer sentencepiece: .*a smaller tokenizer.vocab_size"):
        trained("sp-bpe", vocab_size=50257)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    save_tokenizer(known("bpe"), tmp_path)
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text()[:500])
    with pytest.raises(Damaged, match="not a file of byte-level BPE"):
        open_tokenizer(config("bpe"), tmp_path)


# --- what they are trained on -----------------------------------------------------------------------


def test_a_sample_is_recorded(tmp_path: Path) -> None:
    tokenizer = trained("bpe", vocab_size=300, sample_bytes=5000)
    save_tokenizer(tokenizer, tmp_path)
    record = json.loads((tmp_path / "training.json").read_text())
    assert 5000 <= record["bytes"] < 5000 + max(map(len, sample())) * 4
    assert (
        record["taken"] == [["train", record["documents"], record["bytes"]]] and len(record["sha256"]) == 64
    )


def test_runs_without_spaces_are_cut_and_counted() -> None:
    text = TrainingText(Texts(["short words", "x" * 2500 + " and\n" + "日" * 1200]), ("train",), None)
    pieces = list(text)
    assert max(map(len, pieces)) <= 1000 and text.record["cut_runs"] == 2
    assert (
        "".join(pieces).replace(" ", "").replace("\n", "") == "shortwords" + "x" * 2500 + "and" + "日" * 1200
    )


# --- given tokenizers -------------------------------------------------------------------------------


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    save_tokenizer(known("bpe"), tmp_path)
    cls = registry.find("tokenizer", "file")
    chosen = cls.Config(path=str(tmp_path))
    tokenizer = cls(chosen)
    tokenizer.train(Texts([]))
    assert tokenizer.roles == {"bos": 0, "eos": 0, "pad": 0} and tokenizer.vocab_size == 330
    for text in ("the cat\n", "don't <|endoftext|> é"):
        assert np.array_equal(tokenizer.encode_ids(text), known("bpe").encode_ids(text))
        assert tokenizer.decode(tokenizer.encode_ids(text)) == text
    assert np.array_equal(tokenizer.byte_lengths(), known("bpe").byte_lengths())
    with pytest.raises(UserError, match=r"tokenizer.path: there is no"):
        cls.content(cls.Config(path=str(tmp_path / "none")))


def test_a_sentencepiece_model_is_read(tmp_path: Path) -> None:
    save_tokenizer(known("sp-unigram"), tmp_path)
    chosen = registry.find("tokenizer", "sentencepiece").Config(path=str(tmp_path / "tokenizer.model"))
    tokenizer = registry.find("tokenizer", "sentencepiece")(chosen)
    tokenizer.train(Texts([]))
    assert tokenizer.fingerprint() == known("sp-unigram").fingerprint()


def test_a_model_that_normalises_is_refused_unless_accepted(tmp_path: Path) -> None:
    import io

    import sentencepiece

    sink = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sample()), model_writer=sink, vocab_size=100, model_type="bpe", minloglevel=2
    )
    (tmp_path / "t5.model").write_bytes(sink.getvalue())
    cls = registry.find("tokenizer", "sentencepiece")
    strict, lossy = (cls(cls.Config(path=str(tmp_path / "t5.model"), lossy=lossy)) for lossy in (False, True))
    for tokenizer in (strict, lossy):
        tokenizer.train(Texts([]))
    with pytest.raises(UserError, match=r"does not write the text back as it was .*lossy=true"):
        strict.encode_ids("two  spaces")
    assert lossy.decode(lossy.encode_ids("two  spaces")) != "two  spaces"
    assert strict.decode(strict.encode_ids("the cat")) == "the cat"


def test_ids_are_text_as_numbers() -> None:
    cls = registry.find("tokenizer", "ids")
    tokenizer = cls(cls.Config(vocab_size=100))
    ids, first = tokenizer.encode("17 4 99")
    assert ids.tolist() == [17, 4, 99] and first.tolist() == [0, 3, 5] and tokenizer.decode(ids) == "17 4 99"
    for text in ("100", "x"):
        with pytest.raises(UserError, match="is no id below 100"):
            tokenizer.encode(text)


# --- tokenizers that are given ----------------------------------------------------------------------


def given(folder: Path, **options: Any) -> Any:
    cls = registry.find("tokenizer", "file")
    tokenizer = cls(cls.Config(path=str(folder / "t.json"), **options))
    tokenizer.train(Texts([]))
    return tokenizer


def test_settings_of_batches_in_a_file_are_not_used(tmp_path: Path) -> None:
    """Many files that models come with hold a truncation and a padding."""
    other = Tokenizer.from_str(known("bpe").dump())
    other.enable_truncation(4)
    other.enable_padding(length=8)
    other.save(str(tmp_path / "t.json"))
    text = "the cat sat on the mat and slept"
    assert given(tmp_path).encode_ids(text).tolist() == known("bpe").encode_ids(text).tolist()


def test_a_file_that_normalises_is_refused_unless_accepted(tmp_path: Path) -> None:
    from tokenizers import normalizers

    other = Tokenizer.from_str(known("bpe").dump())
    other.normalizer = normalizers.Lowercase()
    other.save(str(tmp_path / "t.json"))
    assert given(tmp_path).encode_ids("the cat").tolist() == known("bpe").encode_ids("the cat").tolist()
    with pytest.raises(UserError, match="this tokenizer normalises, .* tokenizer.lossy=true"):
        given(tmp_path).encode_ids("The cat")
    assert (
        given(tmp_path, lossy=True).encode_ids("The cat").tolist()
        == known("bpe").encode_ids("the cat").tolist()
    )


@pytest.mark.parametrize("case", ["many files", "val_path", "jsonl"])
def test_a_sample_is_as_large_as_asked(tmp_path: Path, case: str) -> None:
    """Of many small files, of files beside a held-out one, and of records with other columns."""
    from lexarium.corpora.text_files import TextFiles

    options: dict[str, Any] = {"documents": "line", "split": {"val": 0.1}}
    (tmp_path / "t").mkdir()
    for i in range(100 if case == "many files" else 2):
        lines = [f"line {j} of file {i} with some words" for j in range(20 if case == "many files" else 2000)]
        if case == "jsonl":
            records = [json.dumps({"text": x, "more": "y" * 300}) for x in lines]
            (tmp_path / "t" / f"{i}.jsonl").write_text("\n".join(records))
        else:
            (tmp_path / "t" / f"{i}.txt").write_text("\n".join(lines))
    if case == "many files":
        options["documents"] = "file"
    if case == "val_path":
        options = {"documents": "line", "val_path": str(tmp_path / "t" / "1.txt")}
    path = tmp_path / "t" / "0.txt" if case == "val_path" else tmp_path / "t"
    corpus = TextFiles(TextFiles.Config(path=str(path), **options))
    text = TrainingText(corpus, ("train",), 15_000)
    assert sum(len(piece) for piece in text) == pytest.approx(15_000, rel=0.1)
