"""Promise 24: models and scores agree with other implementations.

GPT-2 of transformers (tiny, random weights), recurrences of torch, torch.nn.Transformer, the sizes of the
published models, and the score of a sentence as transformers' loss gives it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lexarium.evaluations.scorer import Scorer
from lexarium.evaluations.segmentation.scores import score
from lexarium.evaluations.segmentation.stream import Stream
from lexarium.foundation import registry
from lexarium.foundation.rng import torch_generator
from lexarium.foundation.types import Document
from lexarium.models.build import build_model
from lexarium.models.layers import count_parameters, sinusoidal_table
from lexarium.training.start import FromHuggingFace, from_gpt2
from toy import toy_tokenizer

V = 19


def make(kind: str, name: str, *arguments: Any, **options: Any) -> Any:
    cls = registry.find(kind, name)
    return cls(cls.Config(**options), *arguments)


def model(name: str, vocab_size: int = V, **options: Any) -> Any:
    return build_model(registry.find("model", name).Config(**options), vocab_size, seed=1).double()


def ids(*shape: int, seed: int = 0, low: int = 0) -> Tensor:
    return torch.randint(low, V, shape, generator=torch_generator(seed, "ids"))


def logits(m: Any, **inputs: Tensor) -> Tensor:
    with torch.no_grad():
        output = m(**inputs)
        return output.unembed(output.hidden)


# --- GPT-2 --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2() -> Any:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(vocab_size=V, n_positions=24, n_embd=16, n_layer=3, n_head=4)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = transformers.GPT2LMHeadModel(config)
        for parameter in theirs.parameters():  # as drawn, biases are zero and norms one: an error could hide
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    return theirs.double().eval()


def ours_with(weights: dict[str, Tensor]) -> Any:
    ours = model("transformer", preset="gpt2", n_layers=3, n_heads=4, d_model=16, max_positions=24)
    ours.load_state_dict(from_gpt2(weights), strict=True)
    return ours


def test_gpt2_gives_the_same_logits(gpt2: Any) -> None:
    ours, rows = ours_with(gpt2.state_dict()), ids(3, 20)
    with torch.no_grad():
        expected = gpt2(rows).logits.reshape(60, V)
    assert torch.allclose(logits(ours, tokens=rows), expected, rtol=0, atol=1e-10)
    assert count_parameters(ours) == sum(p.numel() for p in gpt2.parameters())


def test_gpt2_in_single_precision(gpt2: Any) -> None:
    rows = ids(2, 24)
    ours = ours_with(gpt2.state_dict()).float()
    with torch.no_grad():
        expected = gpt2.float()(rows).logits.reshape(48, V)
    gpt2.double()
    assert torch.allclose(logits(ours, tokens=rows), expected, rtol=0, atol=1e-5)


def test_gpt2_from_a_folder(gpt2: Any, tmp_path: Path) -> None:
    """`start: {type: huggingface}` reads what transformers saves."""
    gpt2.save_pretrained(tmp_path)
    ours = model("transformer", preset="gpt2", n_layers=3, n_heads=4, d_model=16, max_positions=24)
    loaded = FromHuggingFace(FromHuggingFace.Config(path=str(tmp_path))).load(ours)
    assert set(loaded) == {name for name, _ in ours.named_parameters()}
    rows = ids(2, 9)
    with torch.no_grad():
        expected = gpt2(rows).logits.reshape(18, V)
    assert torch.allclose(logits(ours, tokens=rows), expected, rtol=0, atol=1e-6)


def test_gpt2_initialisation_has_the_same_spread(gpt2: Any) -> None:
    transformers = pytest.importorskip("transformers")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = transformers.GPT2LMHeadModel(
            transformers.GPT2Config(vocab_size=300, n_positions=200, n_embd=96, n_layer=4, n_head=4)
        )
    config = registry.find("model", "transformer").Config(
        preset="gpt2", n_layers=4, n_heads=4, d_model=96, max_positions=200
    )
    ours = dict(build_model(config, 300, seed=1).named_parameters())
    for name, parameter in from_gpt2(theirs.state_dict()).items():
        if parameter.ndim == 2:
            assert ours[name].detach().std().item() == pytest.approx(parameter.std().item(), rel=0.05), name
        else:
            assert torch.equal(ours[name].detach(), parameter), name


def test_scores_of_tokens_are_transformers_losses(gpt2: Any) -> None:
    """A sentence's negative log-likelihood, and each token's, as GPT2LMHeadModel computes them with labels."""
    words = [f"w{i:02d}" for i in range(V - 3)]
    tokenizer = toy_tokenizer([" ".join(words)])
    objective = make("objective", "causal", tokenizer)
    assert objective.vocab_size == V
    scorer = Scorer(ours_with(gpt2.state_dict()), objective, make("direction", "forward"), tokenizer)
    texts = [" ".join(words[i] for i in row) for row in ([3], [1, 2, 3, 4, 5, 6, 7], [9, 9, 9])]
    for text, scores in zip(texts, scorer.token_scores([Document(t) for t in texts]), strict=True):
        row = torch.tensor(
            [[objective.roles["bos"], *tokenizer.encode(text)[0].tolist(), objective.roles["eos"]]]
        )
        with torch.no_grad():
            output = gpt2(row, labels=row)
            each = nn.functional.cross_entropy(output.logits[0, :-1], row[0, 1:], reduction="none")
        assert scores.tolist() == pytest.approx((-each).tolist(), abs=1e-5)
        assert -scores.mean() == pytest.approx(output.loss.item(), abs=1e-5)


# --- the models of the arrow-of-time study --------------------------------------------------------------


def test_arrow_models_are_gpt2_with_exact_gelu_and_a_head_of_their_own() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(
        vocab_size=V, n_positions=24, n_embd=16, n_layer=3, n_head=4, activation_function="gelu",
        tie_word_embeddings=False,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        theirs = transformers.GPT2LMHeadModel(config)
        for parameter in theirs.parameters():
            parameter.data.add_(torch.randn_like(parameter) * 0.2)
    theirs = theirs.double().eval()
    sizes = {"n_layers": 3, "n_heads": 4, "d_model": 16, "max_positions": 24}
    ours, rows = model("transformer", preset="arrow_nano", **sizes), ids(3, 24)
    weights = from_gpt2(theirs.state_dict()) | {"unembedding.weight": theirs.lm_head.weight}
    ours.load_state_dict(weights, strict=True)
    with torch.no_grad():
        expected = theirs(rows).logits.reshape(72, V)
    assert torch.allclose(logits(ours, tokens=rows), expected, rtol=0, atol=1e-10)
    assert count_parameters(ours) == sum(p.numel() for p in theirs.parameters())


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_arrow_recurrent_models_are_torchs_stack_with_a_norm_and_a_head(cell: str) -> None:
    ours = model("recurrent", preset=f"arrow_{cell}_big", n_layers=3, d_model=8)
    stack = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](8, 8, num_layers=3, batch_first=True)
    theirs = nn.ModuleList([nn.Embedding(V, 8), stack, nn.LayerNorm(8), nn.Linear(8, V, bias=False)]).double()
    embedding, stack, norm, head = theirs
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        for parameter in theirs.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        for i, layer in enumerate(ours.layers):
            for name, parameter in layer.named_parameters():
                parameter.copy_(getattr(stack, name.replace("_l0", f"_l{i}")))
        ours.embedding.copy_(embedding.weight)
        ours.final_norm.load_state_dict(norm.state_dict())
        ours.unembedding.weight.copy_(head.weight)
        rows = ids(3, 30)
        expected = head(norm(stack(embedding(rows))[0])).reshape(90, V)
    assert torch.allclose(logits(ours, tokens=rows), expected, rtol=0, atol=1e-12)
    assert count_parameters(ours) == sum(p.numel() for p in theirs.parameters())


# --- recurrences --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh", "relu"])
@pytest.mark.parametrize("width", [8, 5])
def test_recurrent_stacks_are_torchs(cell: str, width: int) -> None:
    """Two layers called one by one against torch's own stack of two, with packed sequences for the padding."""
    ours = model("recurrent", cell=cell, n_layers=2, d_model=8, d_embedding=width)
    library = {"lstm": nn.LSTM, "gru": nn.GRU}.get(cell, nn.RNN)
    options = {"nonlinearity": cell} if library is nn.RNN else {}
    theirs = library(width, 8, num_layers=2, batch_first=True, **options).double()
    for i, layer in enumerate(ours.layers):
        for name, parameter in layer.named_parameters():
            getattr(theirs, name.replace("_l0", f"_l{i}")).data.copy_(parameter)
    lengths, rows = [7, 3, 1], ids(3, 7)
    real = torch.tensor([i * 7 + j for i, n in enumerate(lengths) for j in range(n)])
    packed = nn.utils.rnn.pack_padded_sequence(ours.embedding[rows], lengths, batch_first=True)
    with torch.no_grad():
        states, _ = nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
        expected = (
            torch.cat([states[i, :n] for i, n in enumerate(lengths)]) @ ours.unembedding.weight.T
            + ours.unembedding.bias
        )
    assert torch.allclose(logits(ours, tokens=rows, real=real), expected, rtol=0, atol=1e-12)


# --- encoder and decoder --------------------------------------------------------------------------------


def copy_block(ours: Any, theirs: Any) -> None:
    """One of our blocks into torch's encoder or decoder layer."""
    attentions = [
        ("attention", "self_attn"),
        *([("cross", "multihead_attn")] if ours.cross is not None else []),
    ]
    for mine, other in attentions:
        a, b = getattr(ours, mine), getattr(theirs, other)
        b.in_proj_weight.data.copy_(torch.cat([a.q.weight, a.k.weight, a.v.weight]))
        b.in_proj_bias.data.copy_(torch.cat([a.q.bias, a.k.bias, a.v.bias]))
        b.out_proj.load_state_dict(a.out.state_dict())
    norms = ["attention_norm", *(["cross_norm"] if ours.cross is not None else []), "feed_forward_norm"]
    for i, name in enumerate(norms):
        getattr(theirs, f"norm{i + 1}").load_state_dict(getattr(ours, name).state_dict())
    theirs.linear1.load_state_dict(ours.feed_forward.up.state_dict())
    theirs.linear2.load_state_dict(ours.feed_forward.down.state_dict())


def torch_stack(stack: Any, kind: Any, pre: bool, f: int) -> list[Any]:
    layers = []
    for block in stack.blocks:
        layer = (
            kind(16, 4, f, dropout=0.0, activation="relu", batch_first=True, norm_first=pre).double().eval()
        )
        copy_block(block, layer)
        layers.append(layer)
    return layers


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_decoder_is_torchs_transformer(norm: str) -> None:
    pre, lengths, target_lengths = norm == "pre", [6, 2, 4], [3, 5, 1]
    ours = model(
        "encoder_decoder", n_layers=2, n_encoder_layers=3, n_heads=4, d_model=16, d_ff=24, norm=norm, activation="relu",
        attention_bias=True, embedding_scale=True, initialisation="xavier", max_positions=8, output_bias=True,
    )  # fmt: skip
    with torch.no_grad():
        for i, (name, parameter) in enumerate(ours.named_parameters()):
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape, generator=torch_generator(i, name)) * 0.3)
    source, target = ids(3, 6), ids(3, 5, seed=1)
    source_mask = torch.arange(6) < torch.tensor(lengths)[:, None]
    target_mask = torch.arange(5) < torch.tensor(target_lengths)[:, None]
    table = sinusoidal_table(8, 16)
    embed = lambda x: ours.embedding[x] * 4.0 + table[: x.shape[1]]
    with torch.no_grad():
        memory = embed(source)
        for layer in torch_stack(ours.encoder, nn.TransformerEncoderLayer, pre, 24):
            memory = layer(memory, src_key_padding_mask=~source_mask)
        memory = ours.encoder.final_norm(memory) if pre else memory
        x, later = embed(target), torch.ones(5, 5).triu(1).bool()
        for layer in torch_stack(ours.decoder, nn.TransformerDecoderLayer, pre, 24):
            x = layer(x, memory, tgt_mask=later, memory_key_padding_mask=~source_mask)
        x = ours.decoder.final_norm(x) if pre else x
        expected = x @ ours.embedding.T + ours.unembedding.bias
    found = logits(
        ours, tokens=target, real=target_mask.reshape(-1).nonzero()[:, 0], source=source, source_mask=source_mask,
        source_real=source_mask.reshape(-1).nonzero()[:, 0],
    )  # fmt: skip
    assert torch.allclose(found, expected[target_mask], rtol=0, atol=1e-6), (
        "the position table is kept in single precision"
    )


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_language_model_is_torchs_encoder_with_a_causal_mask(norm: str) -> None:
    ours = model(
        "transformer",
        n_layers=2,
        n_heads=4,
        d_model=16,
        d_ff=24,
        norm=norm,
        activation="relu",
        attention_bias=True,
        positions="none",
    )
    rows = ids(2, 9)
    with torch.no_grad():
        x, later = ours.embedding[rows], torch.ones(9, 9).triu(1).bool()
        for layer in torch_stack(ours.stack, nn.TransformerEncoderLayer, norm == "pre", 24):
            x = layer(x, src_mask=later)
        x = ours.stack.final_norm(x) if norm == "pre" else x
    assert torch.allclose(
        logits(ours, tokens=rows), (x @ ours.embedding.T).reshape(18, V), rtol=0, atol=1e-10
    )


# --- sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "words", "expected"),
    [(6, 69, 18_938_439), (4, 101, 12_654_183)],
    ids=["question formation", "tense inflection"],
)
def test_the_published_models_have_their_size(layers: int, words: int, expected: int) -> None:
    """Parameters of the language models of Murty et al. (2023) and Ahuja et al. (2024), the two frame tokens included.

    By hand, per layer: 4 d^2 (attention, no biases), 2 d f + f + d (feed-forward), 4 d (two norms); then the
    embeddings, which are the output too, and the output's bias.
    """
    config = registry.find("model", "transformer").Config(
        preset="hierarchical_generalization", n_layers=layers
    )
    d, f, v = 512, 2048, words + 2
    by_hand = layers * (4 * d * d + 2 * d * f + f + d + 4 * d) + v * d + v
    found = count_parameters(build_model(config, v, device="meta"))
    assert found == by_hand == expected


def test_gpt2_small_has_its_size() -> None:
    config = registry.find("model", "transformer").Config(preset="gpt2")
    assert count_parameters(build_model(config, 50_257, device="meta")) == 124_439_808


@pytest.mark.parametrize(("kind", "words"), [("question_formation", 69), ("tense_inflection", 101)])
def test_the_vocabularies_of_the_tasks(kind: str, words: int) -> None:
    corpus = make("corpus", kind, sizes={"train": 10, "val": 0, "test": 0, "ood": 0})
    tokenizer = make("tokenizer", "word")
    tokenizer.train(corpus)
    assert tokenizer.vocab_size == words, "padding included"


# --- positions ------------------------------------------------------------------------------------------


def test_rotary_positions_are_those_of_llama() -> None:
    """transformers pairs dimension i with i + d/2, base 10,000, as we do."""
    modeling = pytest.importorskip("transformers.models.llama.modeling_llama")
    from lexarium.models.layers import rotate, rotation_of

    x = torch.randn(2, 3, 7, 8, generator=torch_generator(0, "x"))
    position = torch.tensor([list(range(7)), [5, 0, 3, 1, 90, 2, 6]])
    rate = 1.0 / (10000.0 ** (torch.arange(0, 8, 2).float() / 8))
    angle = torch.cat([position[..., None].float() * rate] * 2, dim=-1)
    expected, _ = modeling.apply_rotary_pos_emb(x, x, angle.cos(), angle.sin())
    assert torch.allclose(rotate(x, rotation_of(position, x.shape[-1])), expected, atol=1e-6)


def test_sinusoidal_positions_in_closed_form() -> None:
    table = sinusoidal_table(100, 512)
    for position, i in [(0, 0), (1, 0), (7, 100), (99, 255)]:
        angle = position / 10000 ** (2 * i / 512)
        assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-12)
        assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-12)


# --- segmentation ---------------------------------------------------------------------------------------

DOG = "the dog bites the dog"
PUBLISHED = [
    # found, gold, symbols; F, precision, recall of type, token, boundary_all, boundary; adjusted Rand index
    ("the dog bites thedog", DOG, "th e d o g b i te s th e d o g",
     [6 / 7, 3 / 4, 1], [2 / 3, 3 / 4, 3 / 5], [10 / 11, 1, 5 / 6], [6 / 7, 1, 3 / 4], 0.7845303867403315),
    ("thedog bites thedog", DOG, "t h e d o g b i t e s t h e d o g",
     [2 / 5, 1 / 2, 1 / 3], [1 / 4, 1 / 3, 1 / 5], [4 / 5, 1, 2 / 3], [2 / 3, 1, 1 / 2], 0.6330935251798561),
    ("thedogbitest hedog", DOG, "t h e d o g b i t e s t h e d o g",
     [0, 0, 0], [0, 0, 0], [4 / 9, 2 / 3, 1 / 3], [0, 0, 0], 0.20993589743589744),
    ("th e dog bit es the d og", DOG, "t h e d o g b i t e s t h e d o g",
     [4 / 11, 1 / 4, 2 / 3], [4 / 13, 1 / 4, 2 / 5], [4 / 5, 2 / 3, 1], [8 / 11, 4 / 7, 1], 0.66796875),
    ("the band age of the band age", "the bandage of the band age", "th e b a n d a ge o f th e b a n d a ge",
     [8 / 9, 1, 4 / 5], [10 / 13, 5 / 7, 5 / 6], [14 / 15, 7 / 8, 1], [10 / 11, 5 / 6, 1], 0.7804878048780488),
    ("he llo", "hello", "h e l l o", None, None, [4 / 5, 2 / 3, 1], [0, 0, 0], None),
    ("hell o", "h ello", "h e l l o", None, None, [2 / 3, 2 / 3, 2 / 3], [0, 0, 0], None),
    ("hello", "hello", "h e l l o", None, None, [1, 1, 1], [0, 0, 0], None),
]  # fmt: skip
"""The examples of test/test_evaluate.py in bootphon/wordseg (None there, without a denominator, is 0 here)."""


@pytest.mark.parametrize(("found", "gold", "symbols", "types", "tokens", "edges", "inner", "rand"), PUBLISHED)
def test_segmentation_scores_are_those_of_wordseg(
    found: str, gold: str, symbols: str, types: Any, tokens: Any, edges: Any, inner: Any, rand: float | None
) -> None:
    number = {symbol: i for i, symbol in enumerate(sorted(set(symbols.split())))}

    def words(text: str) -> list[list[int]]:
        left, cut = iter(symbols.split()), []
        for word in text.split():
            own: list[str] = []
            while "".join(own) != word:
                own.append(next(left))
            cut.append([number[symbol] for symbol in own])
        return cut

    stream, cuts = Stream.of_words([words(gold)]), Stream.of_words([words(found)]).starts
    scores = score(stream, cuts)
    published = {"type": types, "token": tokens, "boundary_all": edges, "boundary": inner}
    for name, values in published.items():
        for measure, value in zip(("f", "precision", "recall"), values or (), strict=False):
            assert scores[f"{name}.{measure}"] == pytest.approx(value, abs=1e-12), (name, measure)
    assert rand is None or scores["rand"] == pytest.approx(rand, abs=1e-12)
