"""A fleet's books: what is tried again, what has failed, what ends the run."""

import json
from collections import deque
from pathlib import Path

import pytest

from mico_competition.fleets.fleet import Block, Outcome, blocks_of, run_fleet
from mico_competition.fleets.ledger import Ledger
from mico_competition.training.model_folder import StorageError
from mico_competition.training.settings import resolve


def begun(out, models=range(10)):
    ledger = Ledger(out, resolve({"scenario": "digits_lo"}), "0" * 64, False).with_models(models)
    ledger.write()
    return ledger


class Backend:
    """Does to each block what `fate` says: makes folders, or gives an outcome."""

    def __init__(self, ledger, fate):
        self.ledger, self.fate, self.asked, self.closed = ledger, fate, [], False

    def run(self, blocks: deque[Block]):
        try:
            while blocks:
                block = blocks.popleft()
                self.asked.append((block.model_ids, block.tries))
                outcome = self.fate(block)
                for model_id in block.model_ids if outcome is None else ():
                    self.ledger.folder_of(model_id).mkdir(parents=True)
                yield None
                yield outcome or Outcome(block)
        finally:
            self.closed = True


def finish(ledger, fate=lambda block: None, **arguments):
    backend = Backend(ledger, fate)
    progress = None
    for progress in run_fleet(ledger, backend, **arguments):
        assert progress.done + len(progress.failed) + progress.left == progress.total
    assert backend.closed
    return progress, backend


def events(ledger):
    return [json.loads(line) for line in (ledger.folder / "events.jsonl").read_text().splitlines()]


def test_blocks_are_neighbours_whatever_else_is_asked_for(tmp_path):
    ledger = begun(tmp_path, [*range(12), 17, 100])
    ids = [block.model_ids for block in blocks_of(ledger, 5)]
    assert ids == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11], [17], [100]]
    assert [block.model_ids for block in blocks_of(ledger.only([7, 8, 11]), 5)] == [[7, 8], [11]]


def test_a_second_run_asks_for_what_is_missing_only(tmp_path):
    ledger = begun(tmp_path)
    ledger.folder_of(1).mkdir(parents=True)
    progress, backend = finish(ledger, stack=4)
    assert backend.asked == [([0, 2, 3], 0), ([4, 5, 6, 7], 0), ([8, 9], 0)]
    assert (progress.done, progress.left, progress.failed) == (10, 0, {})
    _, again = finish(ledger, stack=4)
    assert again.asked == []
    done = [event["model_id"] for event in events(ledger) if event["event"] == "done"]
    assert sorted(done) == [0, 2, 3, 4, 5, 6, 7, 8, 9]


def test_a_lost_block_is_tried_again_and_then_given_up(tmp_path):
    ledger = begun(tmp_path)

    def fate(block):
        return Outcome(block, "It died.", lost=True) if 3 in block.model_ids else None

    progress, backend = finish(ledger, fate, stack=1, retries=2)
    assert [tries for ids, tries in backend.asked if ids == [3]] == [0, 1, 2]
    assert progress.failed == {3: "It died."} and progress.retries == 2
    assert (progress.done, progress.left) == (9, 0)


def test_of_a_stack_that_fails_only_the_models_at_fault_do(tmp_path):
    ledger = begun(tmp_path)

    def fate(block):
        return Outcome(block, "Traceback\nValueError: no") if 3 in block.model_ids else None

    progress, backend = finish(ledger, fate, stack=5)
    assert backend.asked[2:] == [([0], 0), ([1], 0), ([2], 0), ([3], 0), ([4], 0)]
    assert progress.failed == {3: "ValueError: no"} and progress.done == 9
    log = (ledger.folder / "failures.log").read_text()
    assert log.count("Traceback") == 2 and "== model_3, 20" in log


def test_what_was_done_of_a_lost_block_stays_done(tmp_path):
    ledger = begun(tmp_path, range(4))

    def fate(block):
        if block.tries:
            return None
        ledger.folder_of(0).mkdir(parents=True)
        return Outcome(block, "It died.", lost=True)

    progress, backend = finish(ledger, fate, stack=4)
    assert backend.asked == [([0, 1, 2, 3], 0), ([1, 2, 3], 1)]
    assert progress.done == 4


def test_a_full_disk_ends_the_run(tmp_path):
    ledger = begun(tmp_path)

    def fate(block):
        return (
            Outcome(block, f"Traceback\n{StorageError.__module__}.StorageError: full", fatal=True)
            if 4 in block.model_ids
            else None
        )

    progress, backend = finish(ledger, fate, stack=1)
    assert progress.stopped == "full"
    assert (progress.done, progress.left) == (4, 6)
    assert len(backend.asked) == 5


def test_a_backend_that_lies_is_found_out(tmp_path):
    """Done means that the folder is there, not that somebody said so."""
    ledger = begun(tmp_path, [0])
    progress, _ = finish(ledger, lambda block: Outcome(block))
    assert progress.failed.keys() == {0}


@pytest.mark.parametrize("secret", ["train_seed", "seed_membership"])
def test_books_hold_no_secret(tmp_path, secret):
    ledger = begun(tmp_path)
    finish(ledger, lambda block: Outcome(block, f"Failed: {block} {block.entries}"))
    lines = (ledger.folder / "ledger.jsonl").read_text().splitlines()
    values = [str(json.loads(line)[secret]) for line in lines]
    for name in ("failures.log", "events.jsonl"):
        text = Path(ledger.folder / name).read_text()
        assert text and not any(value in text for value in values)
