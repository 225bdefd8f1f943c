"""What the demo would do, and how it judges what its clients were told. No process is started."""

import random
from collections.abc import Collection
from pathlib import Path

import msgspec
import pytest

from primacy.cli.demo_faults import catalogue
from primacy.cli.demo_faults.catalogue import FAULTS, NEEDS, named, programme
from primacy.cli.demo_ledger import Account, LedgerFile, Owner, settle
from primacy.cli.demo_writers import LedgerLine
from primacy.errors import Rejected

NOTHING_MISSING = dict.fromkeys(NEEDS, lambda _engine: "")
NOT_ROOT = dict.fromkeys(NEEDS, lambda engine: f"{engine} needs root")


def line(
    row: int, *, node: str = "a", sent_s: float, door: str = "rw", after_s: float = 0.01
) -> LedgerLine:
    return LedgerLine(row, door, sent_s, sent_s + after_s, node)


def account(lines: Collection[LedgerLine], *, present: Collection[int]) -> Account:
    """a leads from 10 s, b from 20 s, and a again from 30 s."""
    owners = [Owner(30.0, "a"), Owner(10.0, "a"), Owner(20.0, "b")]
    return settle(lines, present=present, owners=owners, from_s=15.0, until_s=40.0)


def test_every_fault_of_the_catalogue_is_described() -> None:
    text = (Path(__file__).parents[3] / "docs/faults.md").read_text()
    assert [name for name in FAULTS if f"| {name} |" not in text] == []


def test_what_this_machine_cannot_do_is_left_out_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "NEEDS", NOT_ROOT)
    found = programme("all", engine="mariadb", rounds=2, chance=random.Random(1))
    able = [name for name, fault in FAULTS.items() if not fault.need]
    assert [named(each) for each in found.rounds] == able * 2
    assert set(found.skipped) == set(FAULTS) - set(able)
    assert set(found.skipped.values()) == {"mariadb needs root"}
    with pytest.raises(Rejected, match="partition cannot happen here: mariadb needs root"):
        programme("crash,partition", engine="mariadb", rounds=1, chance=random.Random(1))


def test_random_faults_come_from_their_seed_alone_or_in_pairs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(catalogue, "NEEDS", NOTHING_MISSING)
    first, again, other = (
        [
            named(each)
            for each in programme("random", engine="sqlite", rounds=200, chance=chance).rounds
        ]
        for chance in (random.Random(7), random.Random(7), random.Random(8))
    )
    assert first == again != other
    pairs = [each.split("+") for each in first if "+" in each]
    assert 50 < len(pairs) < 150
    assert all(one != two for one, two in pairs)
    assert all(FAULTS[name].is_pairable for pair in pairs for name in pair)
    assert {name for each in first for name in each.split("+")} == set(FAULTS)


def test_an_unknown_fault_is_refused_with_the_known_ones() -> None:
    with pytest.raises(Rejected, match="crash, host, switchover"):
        programme("crash,meteor", engine="sqlite", rounds=1, chance=random.Random(1))


@pytest.mark.parametrize(
    ("written", "late"),
    [
        (line(1, node="a", sent_s=16.0), 0),
        (line(1, node="a", sent_s=21.0), 1),
        (line(1, node="b", sent_s=29.0), 0),
        (line(1, node="b", sent_s=31.0), 1),
        (line(1, node="a", sent_s=31.0), 0),
        (line(1, node="a", sent_s=9.0), 0),
        (line(1, node="b", sent_s=19.0, after_s=2.0), 0),
        (line(1, node="a", sent_s=19.0, after_s=2.0), 0),
        (line(1, node="a", sent_s=21.0, after_s=2.0), 1),
    ],
    ids=[
        "by the primary",
        "by the old primary, sent after its successor's record",
        "by the successor",
        "by the successor, after the first has come back",
        "by the first, after it has come back",
        "before any record was seen",
        "sent before the successor's record, which then acknowledged it",
        "sent in time, and acknowledged by the old primary after its successor's record",
        "sent and acknowledged after its successor's record",
    ],
)
def test_late_is_what_another_than_the_newest_primary_acknowledged(
    written: LedgerLine, late: int
) -> None:
    assert account([written], present=[1]).late == late


def test_a_late_write_of_a_direct_client_is_told_apart_and_a_missing_row_is_lost() -> None:
    direct = line(2, node="a", sent_s=21.0, door="a")
    found = account([line(1, sent_s=16.0), direct], present=[2])
    assert (found.acknowledged, found.lost, found.late, found.late_direct) == (2, 1, 1, 1)
    promised = [found.against_promise(answers_by_page=by_page) for by_page in (False, True)]
    assert promised == [0, 1]


def test_a_ledger_is_read_once_and_only_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "ledger"
    ledger = LedgerFile(path)
    assert ledger.lines() == []
    first, second = line(1, sent_s=1.0), line(2, sent_s=2.0)
    text = msgspec.json.encode(second) + b"\n"
    path.write_bytes(msgspec.json.encode(first) + b"\n" + text[:9])
    assert ledger.lines() == [first]
    with path.open("ab") as file:
        file.write(text[9:])
    assert ledger.lines() == [first, second]
    assert ledger.lines() == [first, second]
