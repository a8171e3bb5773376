"""Text is tokenised once: the cache gives the same tokens, never others', never half of them."""

import pytest
import torch

from mico_competition.competition.table import get_task
from mico_competition.data.arrays import TextDataset
from mico_competition.models.architectures import load_tokenizer, new_model, save_model
from mico_competition.models.inputs import prepare
from mico_competition.models.small_roberta import make_small_roberta
from mico_competition.models.token_cache import cache_folder

SENTENCES = ["a charming journey . ", "dull and slow ", "the film is a mess "] * 5


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("MICO_CACHE", str(tmp_path / "cache"))
    return make_small_roberta(tmp_path / "base", SENTENCES, vocab_size=300, max_length=67)


def dataset(sentences=SENTENCES):
    return TextDataset(list(sentences), torch.zeros(len(sentences)), torch.arange(len(sentences)))


def prepared(base, sentences=SENTENCES):
    return prepare("sst2", dataset(sentences), base)[0]


def files():
    return sorted(cache_folder().glob("*"))


def same(a, b):
    return torch.equal(a.input_ids, b.input_ids) and torch.equal(a.attention_mask, b.attention_mask)


def test_the_second_time_the_tokenizer_is_not_asked(base, monkeypatch):
    first = prepared(base)
    assert len(files()) == 1
    monkeypatch.setattr(TextDataset, "tokenise", lambda *_: pytest.fail("tokenised again"))
    assert same(prepared(base), first)
    assert first.nbytes == 15 * 67 * 5 + 15 * 8


def test_other_sentences_and_other_tokenizers_have_their_own(base, tmp_path):
    prepared(base)
    other = prepared(base, [*SENTENCES[:-1], "another end "])
    assert same(
        other, dataset([*SENTENCES[:-1], "another end "]).tokenise(load_tokenizer(base), 67)
    )
    assert len(files()) == 2
    wider = make_small_roberta(tmp_path / "wider", SENTENCES, vocab_size=280, max_length=67)
    assert same(prepared(wider), dataset().tokenise(load_tokenizer(wider), 67))
    assert len(files()) == 3


def test_a_model_is_saved_with_the_same_tokenizer_whether_the_cache_had_it_or_not(base, tmp_path):
    """Else models of one fleet would differ, and tell which of them came after a restart."""
    for name in ("tokenised", "from the cache"):
        tokenizer = prepare("sst2", dataset(), base)[1]
        (tmp_path / name).mkdir()
        save_model(
            get_task("sst2"),
            new_model(get_task("sst2"), base_model=base),
            tmp_path / name,
            tokenizer=tokenizer,
        )
    first, second = (
        (tmp_path / n / "tokenizer.json").read_bytes() for n in ("tokenised", "from the cache")
    )
    assert first == second


@pytest.mark.parametrize("spoil", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b[:-9] * 2])
def test_a_damaged_file_counts_as_none(base, spoil):
    first = prepared(base)
    files()[0].write_bytes(spoil(files()[0].read_bytes()))
    assert same(prepared(base), first)
    assert same(prepared(base), first)


def test_a_folder_that_cannot_be_written_is_no_error(base, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MICO_CACHE", str(tmp_path / "file" / "cache"))
    assert len(prepared(base)) == 15
