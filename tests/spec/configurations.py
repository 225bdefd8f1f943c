"""What TLC is asked to look at: bounds under which the specifications hold, and broken ones.

One giant configuration would take days. Each of these lets a part of the protocol happen in full
and leaves the rest out (`Idle`); `docs/spec.md` says what each covers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tests.spec.tlc import Value

FAILOVER = (
    "OnePrimaryPerEpoch",
    "AcksComeFromTheRecordedSet",
    "OldEpochsAreRefused",
    "NoAcknowledgedWriteLost",
    "ReplicaIsAPrefix",
)
LEASE = ("FencedBeforeReplaced", "CommittedStands")
LOCK = ("OneHolder", "TokensGrow", "NoStaleWriteIsTaken", "OnlyTheOwnKeyGoes")
INVARIANTS = {"failover": FAILOVER, "lease": LEASE, "lock": LOCK}
PARTS = frozenset(
    {
        *("Adopt", "Clone", "Cut", "Exclude", "FollowLate", "LoseStore"),
        *("Inherit", "Mark", "Offer", "RecordOwn", "Relax", "Return", "Wipe"),
    }
)
"""Groups of actions of `failover` that a configuration may leave out."""

DEFAULTS: dict[str, dict[str, Value]] = {
    "failover": {
        "Node": "{a, b, c}",
        "None": "None",
        "Acks": 1,
        "MayDegrade": False,
        "DegradedMayLose": False,
        "FirstMembers": frozenset({2}),
        "EpochMax": 2,
        "WriteMax": 1,
        "RecordMax": 2,
        "CrashMax": 0,
        "WipeMax": 0,
        "LifeMax": 1,
    },
    "lease": {
        "Member": "{x, y, z}",
        "Ttl": 2,
        "Trust": 2,
        "EntryMax": 3,
        "TermMax": 2,
        "RestartMax": 0,
        "AskMax": 1,
        "MayRelease": False,
    },
    "lock": {"Client": "{p, q, r}", "RevisionMax": 3, "WriteMax": 2},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """One run of TLC."""

    spec: str
    parts: str = ""
    """Of `failover`: which groups of actions take part."""
    constants: Mapping[str, Value] = field(default_factory=dict)
    soak: Mapping[str, Value] = field(default_factory=dict)
    """What is larger in a long run, by hand."""
    story: str = ""
    """A predicate of `MC<spec>.tla`: states outside it are not searched on."""

    def all_constants(self, broken: str = "", *, is_soak: bool = False) -> dict[str, Value]:
        more: dict[str, Value] = {"Broken": frozenset({broken}) if broken else frozenset[str]()}
        if self.spec == "failover":
            parts = frozenset(self.parts.split())
            assert parts <= PARTS, parts - PARTS
            more["Idle"] = PARTS - parts
        soak = self.soak if is_soak else {}
        return {**DEFAULTS[self.spec], **self.constants, **soak, **more}


def failover(parts: str, *, story: str = "", **constants: Value) -> Bounds:
    return Bounds(spec="failover", parts=parts, constants=constants, story=story)


def lease(**constants: Value) -> Bounds:
    return Bounds(spec="lease", constants=constants, story="IsWorthALook")


def lock(**constants: Value) -> Bounds:
    return Bounds(spec="lock", constants=constants)


def soaked(bounds: Bounds, **larger: Value) -> Bounds:
    return replace(bounds, soak=larger)


PASSES: dict[str, Bounds] = {
    "failover: sealing, claims, openings": soaked(
        failover("Cut FollowLate Inherit RecordOwn Return", EpochMax=3), WriteMax=2, CrashMax=1
    ),
    "failover: the sync set changes": soaked(
        failover("Adopt Exclude FollowLate Mark", RecordMax=3, CrashMax=1),
        FirstMembers=frozenset({1, 2}),
    ),
    "failover: a wiped disk, and the sync set": soaked(
        failover("Clone Exclude Mark Return Wipe", WipeMax=1, LifeMax=2), RecordMax=3
    ),
    "failover: a wiped disk, and openings": soaked(
        failover("Clone Inherit RecordOwn Return Wipe", EpochMax=2, WipeMax=1, LifeMax=2),
        EpochMax=3,
    ),
    "failover: degraded, and back": soaked(
        failover("Exclude Mark Relax Return", MayDegrade=True, RecordMax=3), EpochMax=3
    ),
    "failover: degraded openings": soaked(
        failover("RecordOwn Relax Return", MayDegrade=True, EpochMax=3), RecordMax=3
    ),
    "failover: no acknowledgements by policy": soaked(
        failover("Cut RecordOwn Return", Acks=0, FirstMembers=frozenset({0}), EpochMax=2),
        EpochMax=3,
    ),
    "failover: two acknowledgements": soaked(
        failover("Cut Exclude Mark RecordOwn Return", Acks=2), EpochMax=3
    ),
    "failover: one replica": failover(
        "Adopt Clone Cut Exclude FollowLate Inherit Mark RecordOwn Relax Return Wipe",
        Node="{a, b}",
        FirstMembers=frozenset({1}),
        EpochMax=3,
        RecordMax=3,
        WipeMax=1,
        LifeMax=2,
    ),
    "failover: a hand-over": soaked(failover("Cut Offer RecordOwn Return"), EpochMax=3),
    "failover: a restored store": soaked(
        failover("Inherit LoseStore RecordOwn Return", EpochMax=2), EpochMax=3, RecordMax=3
    ),
    "lease: renewals, ends, elections": soaked(
        lease(EntryMax=3, AskMax=2), EntryMax=4, TermMax=3, Ttl=3, Trust=3
    ),
    "lease: restarts and releases": soaked(
        lease(RestartMax=1, MayRelease=True), EntryMax=4, AskMax=2, RestartMax=2
    ),
    "lock: three clients": soaked(lock(), RevisionMax=4, WriteMax=3),
}

_LOST = "NoAcknowledgedWriteLost"
_UNRECORDED = "AcksComeFromTheRecordedSet"
_UNFENCED = "FencedBeforeReplaced"
_RESTARTING = lease(RestartMax=1)
_RELEASING = lease(MayRelease=True)

VARIANTS: dict[str, tuple[str, Bounds]] = {
    # Rule 2: the transition.
    "joint-phase": (_LOST, failover("Exclude Mark")),
    "sent-swaps-bind": (_LOST, failover("Exclude Mark")),
    "adoption-settles-swaps": (_LOST, failover("Adopt Exclude Mark")),
    "locked-out-is-not-silent": (_LOST, failover("Exclude Mark")),
    "degradation-is-recorded-first": (_LOST, failover("Relax", MayDegrade=True)),
    # Rule 3: the opening.
    "opens-after-its-record": (_UNRECORDED, failover("RecordOwn")),
    "others-are-kept-out": (_UNRECORDED, failover("RecordOwn Return")),
    "waiting-commits-are-not-released": (_LOST, failover("Return", EpochMax=3)),
    # Rule 4: the seal, and the note of a follower.
    "seal-is-noted": (_LOST, failover("FollowLate")),
    "old-sender-is-refused": (_LOST, failover("")),
    "seal-counts-for-its-epoch": (
        _LOST,
        failover("RecordOwn Return", EpochMax=3, story="ReturnsFirst"),
    ),
    "follower-notes": (_UNRECORDED, failover("FollowLate RecordOwn Return", CrashMax=1)),
    # Rules 5 and 6: who may be promoted.
    "one-seal-more": (_LOST, failover("")),
    "lives-are-told-apart": (_LOST, failover("Wipe", WipeMax=1)),
    "heir-won-since-the-record": (_LOST, failover("Inherit RecordOwn", EpochMax=3)),
    "position-has-its-epoch": (
        _LOST,
        failover(
            "LoseStore RecordOwn",
            EpochMax=3,
            WriteMax=3,
            RecordMax=3,
            FirstMembers=frozenset({1}),
            story="IsLostSecond",
        ),
    ),
    "return-needs-an-uncut-log": (_LOST, failover("Cut Return", EpochMax=3, WriteMax=2)),
    "cut-spares-what-was-before": (
        _LOST,
        failover("Cut Return", EpochMax=4, story="ReturnsThird"),
    ),
    "degraded-only-returns": (_LOST, failover("Exclude Mark Relax", MayDegrade=True)),
    "withdrawn-before-reopened": (_LOST, failover("Offer")),
    # Leases.
    "counts-from-the-send": (_UNFENCED, lease()),
    "fence-comes-before-the-end": (_UNFENCED, lease()),
    "end-names-its-renewal": (_UNFENCED, lease(EntryMax=3)),
    "answered-when-applied": (_UNFENCED, lease()),
    "restart-stamps-anew": (_UNFENCED, _RESTARTING),
    "closed-before-it-is-released": (_UNFENCED, _RELEASING),
    "release-is-final": (_UNFENCED, _RELEASING),
    # The lock.
    "oldest-holds": ("OneHolder", lock()),
    "token-is-a-revision": ("TokensGrow", lock()),
    "resource-compares-tokens": ("NoStaleWriteIsTaken", lock()),
    "leaving-names-its-token": ("OnlyTheOwnKeyGoes", lock()),
}
"""A rule that is switched off; the invariant that must break, and where TLC finds it."""
